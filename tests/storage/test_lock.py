"""One writer a folder: who holds it, and when a lock is void."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppo_jax.config.errors import InputError
from ppo_jax.storage import lock

HOLD = """
import sys, time
from pathlib import Path
from ppo_jax.storage import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

RACE = """
import sys, time
from pathlib import Path
from ppo_jax.storage import lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with lock.held(Path(sys.argv[1])):
        print("won", flush=True)
        sys.stdin.readline()
except lock.LockedError as error:
    print(error)
"""


def write_lock(folder: Path, age_seconds: float = 0.0, **content: object) -> None:
    path = folder / lock.LOCK
    path.write_text(json.dumps(content))
    then = time.time() - age_seconds
    os.utime(path, (then, then))


def take(folder: Path) -> None:
    with lock.held(folder):
        pass


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        found = lock.holder(tmp_path)
        assert found is not None
        assert (found["pid"], found["host"]) == (os.getpid(), socket.gethostname())
        sentence = rf"is being written by process {os.getpid()} on .* since 20.*wait for it"
        with pytest.raises(lock.LockedError, match=sentence):
            take(tmp_path)
        with pytest.raises(lock.LockedError):
            lock.refuse_if_held(tmp_path)
    assert list(tmp_path.iterdir()) == []
    lock.refuse_if_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(lock.LockedError, match=f"process {process.pid} on"):
        take(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / lock.LOCK).exists()  # SIGKILL leaves the file, not the lock
    take(tmp_path)
    assert not (tmp_path / lock.LOCK).exists()


def test_of_eight_that_race_one_wins_and_seven_say_who(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RACE, str(tmp_path)]
    pipe = subprocess.PIPE
    racers = [subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) for _ in range(8)]
    for process in racers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    firsts = [process.stdout.readline().strip() for process in racers if process.stdout]
    winner = racers[firsts.index("won")].pid
    for process in racers:
        process.communicate("done\n")
    assert firsts.count("won") == 1
    assert sum(f"is being written by process {winner} on" in text for text in firsts) == 7


@pytest.mark.parametrize(
    "content", [{"pid": 2**22 + 1, "host": socket.gethostname()}, {"pid": "x"}, {}]
)
def test_an_old_lock_file_that_nobody_holds_is_void(tmp_path: Path, content: dict) -> None:
    write_lock(tmp_path, age_seconds=3600, **content)
    take(tmp_path)


def test_a_lock_of_another_host_holds_as_long_as_it_shows_life(tmp_path: Path) -> None:
    write_lock(tmp_path, age_seconds=5, pid=1, host="elsewhere", since="2026-01-01T00:00:00Z")
    sentence = "process 1 on elsewhere since 2026.*seen 5 seconds ago"
    with pytest.raises(lock.LockedError, match=sentence):
        take(tmp_path)
    assert lock.holder(tmp_path) == {"pid": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00Z"}
    write_lock(tmp_path, age_seconds=-7200, pid=1, host="elsewhere")  # a clock was set back
    with pytest.raises(lock.LockedError, match=r"ahead of this host's clock: .* remove run\.lock"):
        take(tmp_path)
    write_lock(tmp_path, age_seconds=lock.STALE_SECONDS + 1, pid=1, host="elsewhere")
    take(tmp_path)


def test_a_holder_shows_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TOUCH_SECONDS", 0.01)
    with lock.held(tmp_path):
        os.utime(tmp_path / lock.LOCK, (0, 0))
        until = time.monotonic() + 10
        while os.stat(tmp_path / lock.LOCK).st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - os.stat(tmp_path / lock.LOCK).st_mtime < 60


def test_without_kernel_locks_a_living_process_of_this_host_still_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    write_lock(tmp_path, age_seconds=3600, pid=os.getppid(), host=socket.gethostname())
    with pytest.raises(lock.LockedError, match=f"process {os.getppid()} on"):
        take(tmp_path)
    write_lock(tmp_path, pid=2**22 + 1, host=socket.gethostname())
    take(tmp_path)


def test_a_folder_that_is_removed_while_it_is_held_can_be_left(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with lock.held(folder):
        folder.rename(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "gone")


def test_a_lock_that_is_a_symbolic_link_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / lock.LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=r"run\.lock' is a symbolic link"):
        take(tmp_path)
    assert (tmp_path / "victim").read_text() == "precious"
