"""Checkpoints under damage, mismatch and interruption, and bit for bit without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ppo_jax.config.errors import InputError
from ppo_jax.storage import checkpoint, checkpoint_files, checkpoint_list, files
from ppo_jax.storage.checkpoint import (
    CheckpointError,
    checkpoint_folder,
    load,
    load_raw,
    save,
)
from ppo_jax.storage.checkpoint_list import latest, prune

KEY = jax.random.key(0)
A = jax.ShapeDtypeStruct((2, 3), jnp.float32)


class State(NamedTuple):
    key: Any
    params: Any
    counters: Any


def example(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, (3, 5), np.uint32)
    return State(
        key=jax.random.split(jax.random.key(seed), 2),
        params={
            "weight": jnp.asarray(bits.view(np.float32)),  # any bits: NaN payloads, denormals
            "half": jnp.asarray(rng.normal(size=7), jnp.bfloat16),
            "empty": jnp.zeros((0, 4)),
            "scalar": jnp.float32(seed),
        },
        counters=(
            jnp.int32(-seed),
            jnp.asarray([True, False]),
            jnp.arange(200, 210, dtype=jnp.uint8),
            jax.random.key(seed, impl="rbg"),
        ),
    )


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
    data = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    return str(leaf.dtype), leaf.shape, np.asarray(data).tobytes()


def assert_same_bits(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert bits(left) == bits(right)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint_folder(tmp_path, 123456)


def test_a_checkpoint_is_named_by_its_environment_steps(tmp_path):
    folder = checkpoint_folder(tmp_path, 123456)
    assert folder == tmp_path / "checkpoints" / "step_000000123456"


@pytest.mark.parametrize("as_shapes", [False, True])
def test_round_trip_keeps_every_bit_and_the_metadata(folder, as_shapes):
    metadata = {"iteration": 7, "names": ["Käfig", 1.5, None], "nested": {"x": 0.1}}
    save(folder, example(3), metadata)
    like = shapes(example(4)) if as_shapes else example(4)
    restored, found = load(folder, like)
    assert_same_bits(restored, example(3))
    assert found == metadata
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_restored_key_draws_what_the_saved_one_would_have_drawn(folder):
    save(folder, jax.random.key(5), {})
    key, _ = load(folder, jax.random.key(0))
    np.testing.assert_array_equal(
        jax.random.normal(key, (4,)), jax.random.normal(jax.random.key(5), (4,))
    )


def test_restored_arrays_may_be_donated(folder):
    save(folder, {"x": jnp.arange(1000.0)}, {})
    before = (folder / checkpoint.ARRAYS).read_bytes()
    restored, _ = load(folder, {"x": jnp.zeros(1000)})
    doubled = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)(restored)
    np.testing.assert_array_equal(doubled["x"], 2 * np.arange(1000.0))
    assert (folder / checkpoint.ARRAYS).read_bytes() == before


def test_non_contiguous_and_host_arrays_are_stored_in_order(folder):
    x = np.arange(12, dtype=np.int32).reshape(3, 4).T
    save(folder, [x, x[::2]], {})
    restored, _ = load(folder, [x, x[::2]])
    np.testing.assert_array_equal(restored[0], x)
    np.testing.assert_array_equal(restored[1], x[::2])


def test_raw_arrays_come_by_path_without_a_structure(folder):
    save(folder, example(3), {"a": 1})
    arrays, metadata = load_raw(folder)
    assert metadata == {"a": 1}
    assert sorted(arrays) == [
        "counters/0",
        "counters/1",
        "counters/2",
        "counters/3",
        "key",
        "params/empty",
        "params/half",
        "params/scalar",
        "params/weight",
    ]
    assert arrays["params/half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(arrays["key"], jax.random.key_data(example(3).key))


def test_the_array_file_is_plain_safetensors(folder):
    save(folder, {"x": jnp.arange(3)}, {})
    found = safetensors.numpy.load_file(folder / "arrays.safetensors")
    np.testing.assert_array_equal(found["x"], [0, 1, 2])


def test_a_flipped_bit_anywhere_is_detected(folder):
    save(folder, example(), {"note": "some text to be flipped", "steps": 123456})
    rng = np.random.default_rng(0)
    for name in (checkpoint.ARRAYS, checkpoint.MANIFEST):
        path = folder / name
        intact = path.read_bytes()
        for position in rng.integers(0, 8 * len(intact), 200):
            damaged = bytearray(intact)
            damaged[position // 8] ^= 1 << (position % 8)
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                load_raw(folder)
        path.write_bytes(intact)
    assert_same_bits(load(folder, example())[0], example())


@pytest.mark.parametrize("name", [checkpoint.ARRAYS, checkpoint.MANIFEST])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999, 1.001, 2.0])
def test_a_truncated_or_lengthened_file_is_detected_and_named(folder, name, share):
    save(folder, example(), {})
    path = folder / name
    intact = path.read_bytes()
    size = int(len(intact) * share)
    path.write_bytes((intact + b"\0" * len(intact))[: size + (share > 1)])
    with pytest.raises(CheckpointError, match=f"{name} is damaged.*earlier checkpoint"):
        load(folder, example())


@pytest.mark.parametrize("name", [checkpoint.ARRAYS, checkpoint.MANIFEST])
def test_a_missing_file_is_named(folder, name):
    save(folder, example(), {})
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is wanted and cannot be read"):
        load(folder, example())


def test_arrays_of_another_checkpoint_are_detected(tmp_path):
    first, second = checkpoint_folder(tmp_path, 1), checkpoint_folder(tmp_path, 2)
    save(first, example(1), {})
    save(second, example(2), {})
    shutil.copy(first / checkpoint.ARRAYS, second / checkpoint.ARRAYS)
    with pytest.raises(CheckpointError, match="its bytes are not those that were written"):
        load(second, example())


def test_a_checkpoint_of_another_format_version_is_refused(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "FORMAT_VERSION", 99)
        save(folder, example(), {})
    with pytest.raises(CheckpointError, match="format 99 and this program reads 1"):
        load(folder, example())


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"a": jnp.zeros((2, 4)), "k": KEY}, r"a is wanted as float32 \[2, 4\] and found as f"),
        ({"a": jnp.zeros((2, 3), int), "k": KEY}, r"as int32 \[2, 3\] and found as float32 \[2, 3"),
        ({"a": A, "k": jnp.zeros(2, jnp.uint32)}, r"k is wanted as uint32 \[2\] and found as key<"),
        ({"a": A, "k": jax.random.key(0, impl="rbg")}, "k is wanted as key<rbg>"),
        (
            {"a": A, "k": jax.ShapeDtypeStruct((2,), KEY.dtype)},
            r"key<.*\[2\] and found as key<.*\[\]",
        ),
        ({"a": A}, "k is found and not wanted"),
        ({"a": A, "k": KEY, "b": A}, "b is wanted and not found"),
    ],
)
def test_what_does_not_fit_is_named_and_never_cast(folder, wanted, sentence):
    save(folder, {"a": jnp.zeros((2, 3)), "k": KEY}, {})
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load(folder, wanted)
    assert "config.json" in str(caught.value)


def test_a_kind_of_key_that_this_jax_does_not_know_is_named(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jax.random, "key_impl", lambda _: "quantum")
        save(folder, KEY, {})
    with pytest.raises(CheckpointError, match=r"value holds no random key.*'quantum'"):
        load(folder, KEY)


def test_a_renamed_path_is_named_with_its_nearest(folder):
    save(folder, {"policy_head": jnp.zeros(1)}, {})
    with pytest.raises(CheckpointError, match=r"Nearest: policy_head\."):
        load(folder, {"policy_heads": jnp.zeros(1)})


def test_float64_is_not_cast_to_float32_behind_the_users_back(folder):
    save(folder, {"x": np.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="JAX_ENABLE_X64"):
        load(folder, {"x": np.zeros(2)})


@pytest.mark.parametrize("leaf", [1.0, "text", np.zeros(1, np.complex64), np.array([None])])
def test_a_leaf_that_cannot_be_stored_is_named_and_nothing_is_written(folder, leaf):
    with pytest.raises(CheckpointError, match=r"^inner/0 "):
        save(folder, {"inner": [leaf]}, {})
    assert not folder.parent.exists()


@pytest.mark.parametrize("metadata", [{"x": float("inf")}, {"x": jnp.zeros(1)}])
def test_metadata_that_is_not_json_is_refused_and_nothing_is_written(folder, metadata):
    with pytest.raises(CheckpointError, match="JSON"):
        save(folder, example(), metadata)
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"leaves": 5},
        {"leaves": [{"path": "x"}]},
        {"leaves": [{"path": "x", "shape": [3], "dtype": "object", "key_impl": None}]},
        {"leaves": [{"path": "x", "shape": [4], "dtype": "int32", "key_impl": None}]},
        {"leaves": []},
        {"metadata": 3},
        {"arrays_sha256": None},
        {"arrays_bytes": "many"},
        {"arrays_bytes": 2**40},
        {"leaves": [{"path": "x", "shape": [2**40], "dtype": "int32", "key_impl": None}]},
    ],
)
def test_a_hostile_manifest_with_a_valid_hash_is_refused_in_a_sentence(folder, content):
    save(folder, {"x": jnp.arange(3)}, {})
    path = folder / checkpoint.MANIFEST
    manifest = json.loads(path.read_bytes()) | content
    del manifest["manifest_sha256"]
    path.write_bytes(checkpoint_files.seal(manifest))
    with pytest.raises(CheckpointError):
        load(folder, {"x": jnp.arange(3)})


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff\xfe", b"NaN"])
def test_any_text_as_a_manifest_is_refused_in_a_sentence(folder, text):
    save(folder, {"x": jnp.arange(3)}, {})
    (folder / checkpoint.MANIFEST).write_bytes(text)
    with pytest.raises(CheckpointError, match="damaged"):
        load_raw(folder)


def fail(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("function", ["rename", "fsync", "mkdir"])
def test_a_full_disk_is_told_and_leaves_the_previous_checkpoint(tmp_path, monkeypatch, function):
    first, second = checkpoint_folder(tmp_path, 1), checkpoint_folder(tmp_path, 2)
    save(first, example(1), {})
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(
            OSError, match=r"No space left.*was not saved, earlier ones are untouched"
        ):
            save(second, example(2), {})
    assert [path.name for path in first.parent.iterdir()] == [first.name]
    assert latest(tmp_path) == (first, [])
    assert_same_bits(load(first, example())[0], example(1))


KILLED_SAVE = """
import os, sys, jax.numpy as jnp
from ppo_jax.storage import checkpoint
calls = 0
def counted(function):
    def wrapper(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os._exit(9)
        return function(*args, **kwargs)
    return wrapper
for name in ("fsync", "rename"):
    setattr(os, name, counted(getattr(os, name)))
checkpoint.save(checkpoint.checkpoint_folder(sys.argv[1], 2), {"x": jnp.ones(2)}, {})
"""


@pytest.mark.parametrize("call, survives", [(1, False), (2, False), (4, False), (5, True)])
def test_a_kill_during_a_save_leaves_only_whole_checkpoints(tmp_path, call, survives):
    # In order: fsync of the arrays, of the manifest and of the folder, rename, fsync of the parent.
    first, second = checkpoint_folder(tmp_path, 1), checkpoint_folder(tmp_path, 2)
    save(first, {"x": jnp.zeros(2)}, {})
    command = [sys.executable, "-c", KILLED_SAVE, str(tmp_path), str(call)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    killed = subprocess.run(command, env=environment, cwd=Path(checkpoint.__file__).parents[2])
    assert killed.returncode == 9
    assert latest(tmp_path) == (second if survives else first, [])
    prune(tmp_path, keep=5)
    left = {path.name for path in first.parent.iterdir()}
    assert left == {first.name} | ({second.name} if survives else set())


def test_saving_again_replaces_a_good_checkpoint_and_keeps_a_damaged_one_for_inspection(tmp_path):
    folder = checkpoint_folder(tmp_path, 1)
    for value in (0.0, 1.0):
        save(folder, {"x": jnp.float32(value)}, {})
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    (folder / checkpoint.ARRAYS).write_bytes(b"damaged")
    save(folder, {"x": jnp.float32(2.0)}, {})
    assert float(load(folder, {"x": jnp.float32(0)})[0]["x"]) == 2.0
    kept = folder.with_name(f"{folder.name}.damaged-1")
    assert (kept / checkpoint.ARRAYS).read_bytes() == b"damaged"
    assert latest(tmp_path) == (folder, [])


def test_a_failed_replacement_puts_the_old_checkpoint_back(tmp_path, monkeypatch):
    folder = checkpoint_folder(tmp_path, 1)
    save(folder, {"x": jnp.float32(1.0)}, {})
    rename, calls = os.rename, []

    def second_rename_fails(source, target):
        calls.append(source)
        return fail() if len(calls) == 2 else rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", second_rename_fails)
        with pytest.raises(OSError, match="No space left"):
            save(folder, {"x": jnp.float32(2.0)}, {})
    assert float(load(folder, {"x": jnp.float32(0)})[0]["x"]) == 1.0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_no_file_of_a_checkpoint_is_a_pickle(folder):
    for module in (checkpoint, checkpoint_files, files):
        assert "import pickle" not in Path(module.__file__).read_text()
    save(folder, example(), {})
    assert {path.name for path in folder.iterdir()} == {checkpoint.ARRAYS, checkpoint.MANIFEST}


def test_a_file_that_never_ends_is_refused_without_reading_it(folder):
    save(folder, {"x": jnp.arange(3)}, {})
    (folder / checkpoint.ARRAYS).unlink()
    (folder / checkpoint.ARRAYS).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="no regular file"):
        load(folder, {"x": jnp.arange(3)})


def test_a_huge_file_is_refused_without_reading_it(folder):
    save(folder, {"x": jnp.arange(3)}, {})
    for name in (checkpoint.ARRAYS, checkpoint.MANIFEST):
        intact = (folder / name).read_bytes()
        os.truncate(folder / name, 2**40)  # sparse: a tebibyte that takes no space
        with pytest.raises(CheckpointError, match="is damaged: it has 1099511627776 bytes"):
            load(folder, {"x": jnp.arange(3)})
        assert latest(folder.parents[1])[0] is None
        (folder / name).unlink()
        (folder / name).write_bytes(intact)


def test_metadata_is_read_without_the_arrays(folder):
    save(folder, {"x": jnp.zeros(1)}, {"note": 1})
    (folder / checkpoint.ARRAYS).unlink()
    assert checkpoint.metadata_of(folder) == {"note": 1}


def test_a_run_folder_that_was_removed_is_not_made_again(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        save(checkpoint_folder(tmp_path / "gone", 1), {"x": jnp.zeros(1)}, {})
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_is_saved_or_deleted_through_a_symbolic_link(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    for steps in (1, 2):
        (elsewhere / "checkpoints").mkdir(parents=True, exist_ok=True)
        checkpoint.save(
            checkpoint.checkpoint_folder(elsewhere, steps), jnp.ones(1), {"env_steps": steps}
        )
    (run / "checkpoints").symlink_to(elsewhere / "checkpoints")
    with pytest.raises(InputError, match=r"checkpoints' is a symbolic link"):
        checkpoint.save(checkpoint.checkpoint_folder(run, 3), jnp.ones(1), {"env_steps": 3})
    with pytest.raises(InputError, match=r"checkpoints' is a symbolic link"):
        checkpoint_list.prune(run, keep=1)
    assert len(list((elsewhere / "checkpoints").iterdir())) == 2
