"""Two hosts on this machine that do one thing after the other: `python -m joined FOLDER`.

They are forks of one process, which pays for the imports. Each host notes its findings as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

AXES = {"learning_rate": [0.01, 0.1], "env.speed": [0.5, 0.25]}
# Packs and the winner's seeds are as many, and share a program.
SWEEP = {"seeds": 2, "eval_episodes": 4, "log_every": 64, "fresh_seeds": 4, "packs": 2}


def main(folder: Path) -> None:
    import flax.linen
    import optax
    from jax._src import xla_bridge

    del flax.linen, optax
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert not xla_bridge._backends  # a fork of a started backend would hang
    children = []
    for index in range(2):
        if child := os.fork():
            children.append(child)
            continue
        code = 1
        try:
            found = act(folder, {"coordinator": f"127.0.0.1:{port}", "num_hosts": 2}, index)
            (folder / f"host-{index}.json").write_text(json.dumps(found))
            code = 0
        finally:
            if code:
                import traceback

                traceback.print_exc()
            os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], codes


def act(folder: Path, joining: dict[str, Any], index: int) -> dict[str, Any]:
    """Everything that a host does, and what it finds."""
    from ppo_jax.distributed import hosts

    joining = {**joining, "host_index": index}
    hosts.join(**joining)  # before gymnax, which starts jax
    from tiny import programs_are_kept

    with programs_are_kept():
        return findings(folder, joining, index)


def findings(folder: Path, joining: dict[str, Any], index: int) -> dict[str, Any]:
    from tiny import tiny_run

    from ppo_jax.apps.run import runner
    from ppo_jax.apps.sweep import driver
    from ppo_jax.apps.sweep.results import pictures
    from ppo_jax.config.errors import InputError
    from ppo_jax.runtime import chunk_loop

    pictures.draw_all = lambda *given: []  # tested elsewhere
    chunk_loop.CHUNK_SECONDS = 1e-9  # one iteration a chunk
    found: dict[str, Any] = {}
    spread(folder / "spread", joining)
    seen: list[Any] = []

    def look(row: Any, moment: Any) -> bool:
        seen.append(moment.state.params["body"]["policy_head"]["bias"].tolist())
        return len(seen) == 2

    heard = tiny_run(folder / "heard", callbacks=look, **joining)
    found["heard"] = [seen, heard.summary["env_steps"]]
    if index == 0:
        shutil.copytree(folder / "heard", folder / "ended")
    resumed = runner.resume(folder / "heard", quiet=True, **joining)
    found["resumed"] = [resumed.exit_code, resumed.summary["env_steps"]]

    chunks, run_chunk = [], chunk_loop.run_chunk

    def counted(*given: Any) -> Any:
        chunks.append(1)
        if index == 1 and len(chunks) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return run_chunk(*given)

    chunk_loop.run_chunk = counted
    stopped = driver.carry_out(sweep_of(folder / "sweep", joining), driver.UNHEARD, None)
    chunk_loop.run_chunk = run_chunk
    found["stopped"] = [stopped.exit_code, len(chunks)]
    whole = driver.resume(folder / "sweep", **joining)
    found["swept"] = [whole.exit_code, whole.summary["best"]]
    found["reproduced"] = reproduced(folder / "suite", folder / "walks.toml", joining)
    try:
        driver.carry_out(sweep_of(folder / "ended", joining), driver.UNHEARD, None)
    except InputError as error:
        found["refused"] = str(error)
    return found


def spread(out: Path, joining: dict[str, Any]) -> None:
    """Train a seed whose environments lie on two devices."""
    import dataclasses

    from tiny import CONFIG, tiny_run

    config = dataclasses.replace(CONFIG, num_envs=16, total_env_steps=5 * 16 * 8)
    tiny_run(out, config=config, seeds=1, mesh="env=2", **joining)


def sweep_of(out: Path, joining: dict[str, Any]) -> Any:
    from tiny import CONFIG, HYPER

    from ppo_jax.apps.sweep.axes import from_mapping
    from ppo_jax.apps.sweep.folder import Sweep
    from ppo_jax.apps.sweep.options import SweepOptions

    options = SweepOptions(**SWEEP, **joining, out=str(out), quiet=True)
    return Sweep(CONFIG, HYPER, from_mapping(AXES), [{}], options)


def reproduced(out: Path, spec: Path, joining: dict[str, Any]) -> int:
    """Exit code of the reproduction of a suite."""
    from ppo_jax.apps.reproduce import running, specs

    request = running.Request((specs.load(str(spec)),), out=str(out), joining=joining)
    return running.reproduce(request, lambda line: None).exit_code


if __name__ == "__main__":
    main(Path(sys.argv[1]))
