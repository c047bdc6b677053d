"""Checkpoints: a pytree of arrays as one safetensors file and a manifest of what must be in it.

A checkpoint is a folder `checkpoints/step_000000123456` of `arrays.safetensors` and
`manifest.json`. It appears by one rename, whole or not at all; every bit of both files is covered
by a SHA-256; what is restored is compared with what is wanted by path, shape and dtype and never
cast. Nothing is pickled, so loading runs no code.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ppo_jax.config import InputError, nearest
from ppo_jax.types import PyTree

ARRAYS = "arrays.safetensors"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1

_STEP = re.compile(r"step_(\d{12,})")
_DTYPE_NAMES = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64"
)
_DTYPES = {name: jnp.dtype(name) for name in _DTYPE_NAMES.split()}


class CheckpointError(InputError):
    """A checkpoint that cannot be read or does not fit: path, wanted, found and remedy."""


class _Leaf(NamedTuple):
    """What the manifest says of one array."""

    path: str
    shape: tuple[int, ...]  # of the stored array: of its key data, where it is a key
    dtype: str
    key_impl: str | None  # "threefry2x32", ..., for a typed random key


def checkpoint_folder(run_folder: Path | str, env_steps: int) -> Path:
    """Where the checkpoint after `env_steps` environment steps (per seed) lies."""
    return Path(run_folder) / "checkpoints" / f"step_{env_steps:012d}"


def save(folder: Path | str, tree: PyTree, metadata: dict[str, Any]) -> None:
    """Write `tree` and JSON-ready `metadata` so that `folder` appears whole or not at all.

    Files and folders are synced to the disk before and after the rename. An older checkpoint of
    the same name is replaced; if it was damaged, it is kept beside as `NAME.damaged-N`.

    Raises:
        OSError: the disk is full, read-only or gone; earlier checkpoints are untouched.
        CheckpointError: a leaf is no array of a storable dtype, or metadata is not JSON.
    """
    folder = Path(folder)
    arrays, leaves = _to_arrays(tree)
    data = safetensors.numpy.save(arrays)
    manifest = _encode_manifest(data, leaves, metadata)
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write_synced(temporary / ARRAYS, data)
        _write_synced(temporary / MANIFEST, manifest)
        _sync_folder(temporary)
        _rename_into_place(temporary, folder)
        _sync_folder(folder.parent)
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
    arrays, leaves, metadata = _read(Path(folder))
    stored = {leaf.path: leaf for leaf in leaves}
    wanted, structure = jax.tree_util.tree_flatten_with_path(like)
    paths = [_name(path) for path, _ in wanted]
    _check_paths(Path(folder), paths, list(stored))
    restored = [
        _restore(Path(folder), stored[path], arrays[path], leaf)
        for path, (_, leaf) in zip(paths, wanted, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, restored), metadata


def load_raw(folder: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every stored array by its path (random keys as their uint32 data), and the metadata.

    Raises:
        CheckpointError: missing, damaged or of another version.
    """
    arrays, _, metadata = _read(Path(folder))
    return arrays, metadata


def latest(run_folder: Path | str) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint of a run, and a sentence for each newer one that is not."""
    warnings = []
    for folder in _newest_first(Path(run_folder)):
        damage = _damage(folder)
        if damage is None:
            return folder, warnings
        warnings.append(f"{damage} Falling back to the checkpoint before it.")
    return None, warnings


def prune(run_folder: Path | str, keep: int) -> None:
    """Delete all but the newest `keep` undamaged checkpoints, and what killed saves left behind.

    Only what can be read counts as kept, and damaged ones newer than those stay for inspection.
    """
    if keep < 1:
        raise InputError(f"keep={keep} leaves no checkpoint to resume from: keep at least 1.")
    run_folder = Path(run_folder)
    num_kept = 0
    for folder in _newest_first(run_folder):
        if num_kept < keep:
            num_kept += _damage(folder) is None
        else:
            _delete(folder)
    for leftover in (run_folder / "checkpoints").glob(".step_*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _newest_first(run_folder: Path) -> list[Path]:
    numbered = [
        (int(match[1]), path)
        for path in (run_folder / "checkpoints").glob("step_*")
        if (match := _STEP.fullmatch(path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def _damage(folder: Path) -> str | None:
    try:
        _read(folder)
    except CheckpointError as error:
        return str(error)
    return None


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "value"


def _to_arrays(tree: PyTree) -> tuple[dict[str, np.ndarray], list[_Leaf]]:
    arrays, leaves = {}, []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
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
        array = np.asarray(leaf, order="C")
        if str(array.dtype) not in _DTYPES or name in arrays:
            raise CheckpointError(
                f"{name} ({array.dtype}) cannot be stored: a checkpoint holds one array a path, "
                f"of one of these dtypes: {_DTYPE_NAMES}."
            )
        leaves.append(_Leaf(name, array.shape, str(array.dtype), key_impl))
        # numpy has no bfloat16 of its own, so its bits travel as whole numbers.
        arrays[name] = array.view(np.uint16) if array.dtype == _DTYPES["bfloat16"] else array
    return arrays, leaves


def _restore(folder: Path, leaf: _Leaf, array: np.ndarray, like: Any) -> jax.Array:
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


def _encode_manifest(data: bytes, leaves: list[_Leaf], metadata: dict[str, Any]) -> bytes:
    content = {
        "format_version": FORMAT_VERSION,
        "arrays_sha256": hashlib.sha256(data).hexdigest(),
        "leaves": [leaf._asdict() for leaf in leaves],
        "metadata": metadata,
    }
    try:
        return _seal(content)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint metadata must be JSON without NaN or infinity ({error}): write such "
            "values as strings or null."
        ) from None


def _seal(content: dict[str, Any]) -> bytes:
    """The manifest's one and only spelling, with the hash of itself."""
    canonical = json.dumps(content, sort_keys=True, allow_nan=False).encode()
    sealed = content | {"manifest_sha256": hashlib.sha256(canonical).hexdigest()}
    return (json.dumps(sealed, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _read(folder: Path) -> tuple[dict[str, np.ndarray], list[_Leaf], dict[str, Any]]:
    """Arrays by path, their descriptions and the metadata, with every hash checked."""
    manifest = _decode_manifest(folder, _read_file(folder / MANIFEST))
    data = _read_file(folder / ARRAYS)
    found = hashlib.sha256(data).hexdigest()
    wanted = manifest["arrays_sha256"]
    if found != wanted:
        raise CheckpointError(
            f"{folder / ARRAYS} is damaged: SHA-256 wanted {wanted}, found {found} in {len(data)} "
            "bytes; use an earlier checkpoint."
        )
    try:
        leaves = [_Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in manifest["leaves"]]
        stored = safetensors.numpy.load(data)
        arrays = {leaf.path: stored.pop(leaf.path).view(_DTYPES[leaf.dtype]) for leaf in leaves}
        agree = not stored and all(arrays[leaf.path].shape == leaf.shape for leaf in leaves)
    except (TypeError, KeyError, ValueError, safetensors.SafetensorError):
        agree = False
    if not agree or not isinstance(manifest["metadata"], dict):
        raise CheckpointError(
            f"{folder}: the manifest and the arrays contradict each other, so this checkpoint was "
            "not written by this program; use another."
        )
    return arrays, leaves, manifest["metadata"]


def _decode_manifest(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
        version = content["format_version"]
        if version == FORMAT_VERSION:
            seal = content.pop("manifest_sha256")
            intact = _seal(content) == text and isinstance(seal, str)
            if intact and {"arrays_sha256", "leaves", "metadata"} <= content.keys():
                return content
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        version = FORMAT_VERSION
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint format {version!r} and this program reads {FORMAT_VERSION}: "
            "use the version of the program that wrote it, or an earlier checkpoint."
        )
    raise CheckpointError(
        f"{folder / MANIFEST} is damaged: its text is not what its own SHA-256 says; use an "
        "earlier checkpoint."
    )


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} is wanted and cannot be read ({error.strerror}): use an earlier checkpoint."
        ) from None


def _rename_into_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(temporary, folder)
        return
    reason = "replaced" if _damage(folder) is None else "damaged"
    names = (folder.with_name(f"{folder.name}.{reason}-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except OSError:
        os.rename(aside, folder)
        raise
    if reason == "replaced":
        _delete(aside)


def _delete(folder: Path) -> None:
    """Rename first, so that a kill in the middle leaves no half checkpoint under a valid name."""
    doomed = folder.with_name(f".{folder.name}.deleted-{os.getpid()}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and orders renames by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
