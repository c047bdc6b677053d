"""One seed of a run trained again: equal bits in every layout, and what is kept on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LENGTH, START, programs_are_kept, tiny_run

from ppo_jax.apps.diagnose import replay as replaying
from ppo_jax.apps.diagnose.replay import replay
from ppo_jax.cli.main import main
from ppo_jax.config.errors import InputError
from ppo_jax.distributed import layout as layouts
from ppo_jax.distributed import programs
from ppo_jax.models.agent import assemble
from ppo_jax.runtime import saved_run
from ppo_jax.storage import run_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _kept() -> Iterator[None]:
    with programs_are_kept():
        yield


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds, side by side on each of two devices."""
    return tiny_run(tmp_path_factory.mktemp("runs") / "walked").folder


def test_a_member_of_a_batch_is_replayed_bit_for_bit(walked: Path, tmp_path: Path) -> None:
    report = replay(walked, member=1, keep=[2, 5], out=tmp_path / "kept")
    assert report["layout"] == "vmap"
    assert (report["is_equal"], report["differing_bits"]) == (True, 0)
    assert (report["iterations"], report["env_steps"], report["seed"]) == (7, 224, 1)
    assert report["fingerprint_changes"] == []
    assert [point["iteration"] for point in report["kept"]] == [2, 5]
    assert [point["largest_difference"] for point in report["kept"]] == [0.0, 0.0]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "trajectory_00000002.npz",
        "trajectory_00000005.npz",
    ]


def test_a_trajectory_is_a_walk_of_the_environment(walked: Path, tmp_path: Path) -> None:
    """Its rules written down again: x moves by 0.5 to the side that the action names."""
    replay(walked, keep=[1], out=tmp_path)
    with np.load(tmp_path / "trajectory_00000001.npz") as kept:
        found = {name: kept[name] for name in kept.files}
    assert found["observation"].shape == (8, 4, 2)
    assert found["action"].shape == found["reward"].shape == (8, 4)
    x = np.full(4, START)
    time = np.zeros(4)
    for t in range(8):
        np.testing.assert_allclose(found["observation"][t, :, 0], x, atol=1e-6)
        x, time = x + 0.5 * (2.0 * found["action"][t] - 1.0), time + 1
        np.testing.assert_allclose(found["reward"][t], -np.abs(x), atol=1e-6)
        np.testing.assert_array_equal(found["terminated"][t], np.abs(x) > 2.0)
        np.testing.assert_array_equal(
            found["truncated"][t], (time >= LENGTH) & ~found["terminated"][t]
        )
        ended = found["terminated"][t] | found["truncated"][t]
        x, time = np.where(ended, START, x), np.where(ended, 0, time)
    assert found["truncated"].any()


@pytest.mark.parametrize("kind, seeds", [("map", 3), ("envs", 1)])
def test_members_of_the_other_layouts_are_replayed_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seeds: int
) -> None:
    monkeypatch.setattr(layouts, "VMAP_LAYOUT_MINIBATCH", 0)
    monkeypatch.setattr(layouts, "ENVS_LAYOUT_ROWS", 0 if kind == "envs" else 10**9)
    run = tiny_run(tmp_path / "run", seeds=seeds).folder
    report = replay(run, member=seeds - 1, keep=[3])
    assert report["layout"] == "map"
    assert report["differing_bits"] == 0
    # The environments are where the chunk's own rollout left them: its draws were found again.
    assert report["kept"][0]["largest_difference"] <= 1e-6
    assert (run / f"replay-{seeds - 1}" / "trajectory_00000003.npz").is_file()


def test_a_run_that_began_with_another_ones_policy_is_replayed(
    walked: Path, tmp_path: Path
) -> None:
    run = tiny_run(tmp_path / "run", init_from=str(walked)).folder
    assert replay(run, member=2, keep=())["differing_bits"] == 0


def test_a_checkpoint_of_other_bits_is_told_and_so_is_another_fingerprint(
    walked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = saved_run.load_state

    def one_bit_off(*given: Any) -> Any:
        config, hyper, options, state, metadata = whole(*given)
        kernel = state.params["body"]["policy_head"]["kernel"]
        number = jax.lax.bitcast_convert_type(kernel, jnp.int32) ^ 1
        kernel = jax.lax.bitcast_convert_type(number, jnp.float32)
        state.params["body"]["policy_head"]["kernel"] = kernel
        recorded = {**metadata["fingerprint"], "jax": "0.0.1"}
        return config, hyper, options, state, {**metadata, "fingerprint": recorded}

    monkeypatch.setattr(saved_run, "load_state", one_bit_off)
    report = replay(walked, keep=())
    assert not report["is_equal"]
    assert report["differing_bits"] == report["differing_bits_params"] == 8 * 2
    assert 0.0 < report["largest_difference_params"] < 1e-6
    assert report["fingerprint_changes"] == [f"jax is {jax.__version__!r} and was '0.0.1'"]


def test_bits_are_counted_over_all_kinds_of_leaves() -> None:
    tree = {"key": jax.random.key(0), "x": jnp.zeros(2), "is": jnp.ones((), bool)}
    assert replaying.differing_bits(tree, tree) == 0
    assert replaying.differing_bits(tree, {**tree, "is": jnp.zeros((), bool)}) == 1
    assert replaying.differing_bits(tree, {**tree, "x": jnp.array([0.0, -0.0])}) == 1
    assert replaying.differing_bits(tree, {**tree, "key": jax.random.key(3)}) == 2


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"member": 3}, r"member=3 is not among the run's 3 seeds \(0 to 2\)"),
        ({"keep": [8]}, "keep=8 is no iteration of the saved run: they count from 1 to 7"),
        ({"keep": [0]}, "keep=0 is no iteration"),
        ({"video": True}, "cannot be drawn"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_anything_is_trained(
    walked: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(programs, "make_chunk", lambda *_: pytest.fail("trained"))
    with pytest.raises(InputError, match=sentence):
        replay(walked, **changes)


def test_the_command_says_whether_bits_differ(
    walked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(walked), "--keep", "none", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_equal"]
    out = tmp_path / "kept"
    assert main(["replay", str(walked), "--keep", "1", "--out", str(out)]) == 0
    assert "equal     0 differing bits" in capsys.readouterr().out
    assert main(["replay", str(walked), "--keep", "1", "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(["replay", str(walked), "--keep", "none", "--video"]) == 2


def test_videos_are_drawn_at_the_kept_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def drawing(config: Any, hyper: Any, member: Any, mode: str, stream: int) -> Any:
        drawn.append((int(member.iteration), mode, stream))
        return replaying.frames.Episode([np.zeros((4, 4, 3), np.uint8)] * 2, 0.0, True)

    monkeypatch.setattr(replaying.frames, "draw_frames", drawing)
    monkeypatch.setattr(replaying.frames, "renderer", lambda environment: None)
    run = tiny_run(tmp_path / "run").folder
    report = replay(run, video=True)
    assert [point["iteration"] for point in report["kept"]] == [1, 7]
    assert drawn == [(0, "deterministic", 1), (6, "deterministic", 7)]  # before each of them
    assert all(Path(point["video"]).read_bytes()[:3] == b"GIF" for point in report["kept"])


def test_the_layout_is_the_recorded_one(walked: Path) -> None:
    config = run_folder.read_settings(walked).config
    recorded = {"devices": 1, "layout": "map"}
    layout = replaying.recorded_layout(config, 3, recorded)
    assert (layout.kind, len(layout.devices), layout.num_members) == ("map", 1, 3)
    assert replaying.layout_of_one(layout).num_members == 1
    assert assemble(config).environment.name


def test_leaves_of_a_trajectory_have_names_of_their_own() -> None:
    named = replaying._named("observation", {"far": {"board": 1}, "aim": (2, 3)})
    assert named == {"observation.far.board": 1, "observation.aim.0": 2, "observation.aim.1": 3}
    assert replaying._named("action", 4) == {"action": 4}
