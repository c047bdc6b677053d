"""Checkpoints: a pytree of arrays as one safetensors file and a manifest of what must be in it.

A checkpoint is a folder `checkpoints/step_000000123456` of `arrays.safetensors` and
`manifest.json`. It appears by one rename, whole or not at all; every bit of both files is covered
by a SHA-256; what is restored is compared with what is wanted by path, shape and dtype and never
cast. Nothing is pickled, so loading runs no code.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppo_jax.config.errors import nearest
from ppo_jax.distributed import door, hosts
from ppo_jax.rl.types import PyTree
from ppo_jax.storage import checkpoint_files, files
from ppo_jax.storage.checkpoint_files import ARRAYS as ARRAYS
from ppo_jax.storage.checkpoint_files import MANIFEST as MANIFEST
from ppo_jax.storage.checkpoint_files import CheckpointError as CheckpointError
from ppo_jax.storage.checkpoint_files import Leaf, Manifest

STEP = re.compile(r"step_(\d{12,})")  # name of a folder


def checkpoint_folder(run_folder: Path | str, env_steps: int) -> Path:
    """The folder of the checkpoint after `env_steps` environment steps (per seed)."""
    return Path(run_folder) / "checkpoints" / f"step_{env_steps:012d}"


class Snapshot(NamedTuple):
    """A tree's arrays as they were at one moment, in memory of their own."""

    arrays: dict[str, np.ndarray]
    leaves: list[Leaf]


def snapshot(tree: PyTree) -> Snapshot:
    """Copy a tree off the devices, so that it may be donated or changed while this is written.

    It is empty on every host but the first, which writes; all must call it.

    Raises:
        CheckpointError: a leaf is no array of a storable dtype.
    """
    if not hosts.is_first():
        door.give(tree)
        return Snapshot({}, [])
    return Snapshot(*_to_arrays(tree))


def save(folder: Path | str, tree: PyTree | Snapshot, metadata: dict[str, Any]) -> None:
    """Write `tree` and JSON-ready `metadata` so that `folder` appears whole or not at all.

    Files and folders are synced to the disk before and after the rename. An older checkpoint of
    the same name is replaced; if it was damaged, it is kept beside as `NAME.damaged-N`.

    Raises:
        OSError: the disk is full, read-only or gone; earlier checkpoints are untouched.
        CheckpointError: a leaf is no array of a storable dtype, or metadata is not JSON.
        InputError: a symbolic link is in its place.
    """
    folder = Path(folder)
    arrays, leaves = tree if isinstance(tree, Snapshot) else snapshot(tree)
    data, manifest = checkpoint_files.encode(arrays, leaves, metadata)
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    files.refuse_links(folder.parent, folder)
    try:
        folder.parent.mkdir(exist_ok=True)  # the run's own folder must be there
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        files.write_synced(temporary / ARRAYS, data)
        files.write_synced(temporary / MANIFEST, manifest)
        files.sync_folder(temporary)
        checkpoint_files.rename_into_place(temporary, folder)
        files.sync_folder(folder.parent)
    except OSError as error:
        sentence = (
            f"{os.strerror(error.errno or errno.EIO)}: this checkpoint was not saved, earlier ones "
            "are untouched; free space or name another folder with --out, then resume"
        )
        raise OSError(error.errno, sentence, str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(folder: Path | str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
    """Restore a tree of jax arrays in the structure of `like`, and the metadata saved with it.

    Args:
        like: pytree of arrays or `jax.ShapeDtypeStruct`s, typed random keys included; only
            structure, shapes and dtypes are read.

    Raises:
        CheckpointError: missing, damaged, of another version, or not what `like` wants.
    """
    folder = Path(folder)
    manifest = checked(folder, checkpoint_files.read_manifest(folder))
    stored = {leaf.path: leaf for leaf in manifest.leaves}
    wanted, structure = jax.tree_util.tree_flatten_with_path(like)
    paths = [_name(path) for path, _ in wanted]
    _check_paths(folder, paths, list(stored))  # before any array takes memory
    arrays = checkpoint_files.read_arrays(folder, manifest)
    restored = [
        _restore(folder, stored[path], arrays[path], leaf)
        for path, (_, leaf) in zip(paths, wanted, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, restored), manifest.metadata


def load_raw(folder: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every stored array by its path (random keys as their uint32 data), and the metadata.

    Raises:
        CheckpointError: missing, damaged or of another version.
    """
    folder = Path(folder)
    manifest = checked(folder, checkpoint_files.read_manifest(folder))
    return checkpoint_files.read_arrays(folder, manifest), manifest.metadata


def metadata_of(folder: Path | str) -> dict[str, Any]:
    """The metadata of a checkpoint, without reading its arrays.

    Raises:
        CheckpointError: missing, damaged or of another version.
    """
    return checked(Path(folder), checkpoint_files.read_manifest(Path(folder))).metadata


def checked(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of a checkpoint, which must stand under its own name."""
    named, found = STEP.fullmatch(folder.name), manifest.metadata.get("env_steps")
    if named and isinstance(found, int) and int(named[1]) != found:
        raise CheckpointError(
            f"{folder} holds the state after {found} environment steps: it was renamed or "
            "exchanged for another; give it its own name, or use an earlier checkpoint."
        )
    return manifest


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "value"


def _to_arrays(tree: PyTree) -> tuple[dict[str, np.ndarray], list[Leaf]]:
    arrays, leaves = {}, []
    for path, leaf in jax.tree_util.tree_flatten_with_path(door.home(tree))[0]:
        name = _name(path)
        if not hasattr(leaf, "dtype"):
            raise CheckpointError(
                f"{name} is {leaf!r} of type {type(leaf).__name__}, and a checkpoint holds arrays "
                "only: wrap it in jnp.asarray with the dtype it should have."
            )
        key_impl = None
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            key_impl = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        # A copy: on a CPU numpy would look into jax's own memory, which the next chunk takes back.
        array = door.copy(leaf)
        if str(array.dtype) not in checkpoint_files.DTYPES or name in arrays:
            raise CheckpointError(
                f"{name} ({array.dtype}) cannot be stored: a checkpoint holds one array a path, "
                f"of one of these dtypes: {checkpoint_files.DTYPE_NAMES}."
            )
        leaves.append(Leaf(name, array.shape, str(array.dtype), key_impl))
        # numpy has no bfloat16 of its own, so its bits travel as whole numbers.
        arrays[name] = (
            array.view(np.uint16) if array.dtype == checkpoint_files.DTYPES["bfloat16"] else array
        )
    return arrays, leaves


def _restore(folder: Path, leaf: Leaf, array: np.ndarray, like: Any) -> jax.Array:
    # A copy that jax owns: it may be donated, and the file's bytes may not.
    restored = jnp.array(array, copy=True)
    if restored.dtype != array.dtype:
        raise CheckpointError(
            f"{folder}: jax would cast {leaf.path} from {array.dtype} to {restored.dtype}: set "
            "JAX_ENABLE_X64=1 to load it."
        )
    if leaf.key_impl is not None:
        try:
            restored = jax.random.wrap_key_data(restored, impl=leaf.key_impl)
        except (TypeError, ValueError):
            raise CheckpointError(
                f"{folder}: {leaf.path} holds no random key of this jax's kind {leaf.key_impl!r}: "
                "use the version of jax that wrote it."
            ) from None
    if restored.dtype != like.dtype or restored.shape != tuple(like.shape):
        raise CheckpointError(
            f"{folder}: {leaf.path} is wanted as {like.dtype} {list(like.shape)} and found as "
            f"{restored.dtype} {list(restored.shape)}: use the config that the run was saved with "
            "(its config.json); nothing is cast."
        )
    return restored


def _check_paths(folder: Path, wanted: list[str], found: list[str]) -> None:
    missing = [path for path in wanted if path not in set(found)]
    extra = [path for path in found if path not in set(wanted)]
    if missing or extra:
        told = [f"{path} is wanted and not found" for path in missing]
        told += [f"{path} is found and not wanted" for path in extra]
        more = f" and {len(told) - 4} more" if len(told) > 4 else ""
        hint = nearest(missing[0], extra) if missing else ""
        raise CheckpointError(
            f"{folder}: {', '.join(told[:4])}{more}: use the config that the run was saved with "
            f"(its config.json).{hint}"
        )
