"""The two files of a checkpoint: their bytes, and the checks when they are read.

See docs/durability.md for the format. The choice of a checkpoint is in `checkpoint`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import stat
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ppo_jax.config import reading
from ppo_jax.config.errors import InputError

ARRAYS = "arrays.safetensors"
MANIFEST = "manifest.json"
FORMAT_VERSION = 1

DTYPE_NAMES = (
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64"
)
DTYPES = {name: jnp.dtype(name) for name in DTYPE_NAMES.split()}

_LARGEST_MANIFEST = 1 << 28  # bytes; a larger file is none of ours and is not read
_REQUIRED = {"arrays_bytes", "arrays_sha256", "leaves", "metadata"}
_LEAF = {"path": str, "shape": [int], "dtype": str, "key_impl": (str, None)}
_SHAPE = {
    "arrays_bytes": int,
    "arrays_sha256": str,
    "leaves": [_LEAF],
    "metadata": {"env_steps?": int, "run_id?": (str, None), "score?": (float, None)},
}


class CheckpointError(InputError):
    """A checkpoint that cannot be read or does not fit: path, wanted, found and remedy."""


class Leaf(NamedTuple):
    """The manifest's entry for one array."""

    path: str
    shape: tuple[int, ...]  # shape of the stored array, or of its key data
    dtype: str
    key_impl: str | None  # "threefry2x32", ..., for a typed random key

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class Manifest(NamedTuple):
    """The manifest of an undamaged checkpoint."""

    arrays_bytes: int
    arrays_sha256: str
    leaves: list[Leaf]
    metadata: dict[str, Any]


def encode(
    arrays: dict[str, np.ndarray], leaves: list[Leaf], metadata: dict[str, Any]
) -> tuple[bytes, bytes]:
    """The bytes of both files.

    Raises:
        CheckpointError: the metadata is not JSON.
    """
    data = safetensors.numpy.save(arrays)
    content = {
        "format_version": FORMAT_VERSION,
        "arrays_bytes": len(data),
        "arrays_sha256": hashlib.sha256(data).hexdigest(),
        "leaves": [leaf._asdict() for leaf in leaves],
        "metadata": metadata,
    }
    try:
        return data, seal(content)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint metadata must be JSON without NaN or infinity ({error}): write such "
            "values as strings or null."
        ) from None


def seal(content: dict[str, Any]) -> bytes:
    """The manifest's one and only spelling, with the hash of itself."""
    canonical = json.dumps(content, sort_keys=True, allow_nan=False).encode()
    sealed = content | {"manifest_sha256": hashlib.sha256(canonical).hexdigest()}
    return (json.dumps(sealed, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest, its own hash checked.

    Raises:
        CheckpointError: missing, damaged or of another version.
    """
    path = folder / MANIFEST
    content = _decode(folder, _read(path, _LARGEST_MANIFEST))
    try:
        reading.expect(content, _SHAPE)
        leaves = [Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in content["leaves"]]
        size = content["arrays_bytes"]
        # Names and numbers of the header come on top of the arrays themselves.
        room = sum(leaf.num_bytes + 4096 for leaf in leaves) + 4096
        believable = 0 <= size <= room and all(n >= 0 for leaf in leaves for n in leaf.shape)
    except (TypeError, KeyError, ValueError):
        believable = False
    if not believable:
        raise _contradiction(folder)
    return Manifest(size, content["arrays_sha256"], leaves, content["metadata"])


def verify(folder: Path) -> Manifest:
    """Check both files in little memory, whatever their size; the manifest of an undamaged one.

    Raises:
        CheckpointError: missing, damaged or of another version.
    """
    manifest = read_manifest(folder)
    path = folder / ARRAYS
    try:
        with _open(path, manifest.arrays_bytes) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None
    _compare(path, manifest, found)
    return manifest


def read_arrays(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    """The arrays by path, every bit of them covered by the manifest's hash.

    Raises:
        CheckpointError: missing, damaged, or not as in the manifest.
    """
    path = folder / ARRAYS
    data = _read(path, manifest.arrays_bytes)
    _compare(path, manifest, hashlib.sha256(data).hexdigest())
    try:
        stored = safetensors.numpy.load(data)
        arrays = {leaf.path: stored.pop(leaf.path).view(DTYPES[leaf.dtype]) for leaf in manifest[2]}
        agree = not stored and all(arrays[leaf.path].shape == leaf.shape for leaf in manifest[2])
    except (TypeError, KeyError, ValueError, safetensors.SafetensorError):
        agree = False
    if not agree:
        raise _contradiction(folder)
    return arrays


def rename_into_place(temporary: Path, folder: Path) -> None:
    """Give a finished checkpoint its name; one that stood there and is damaged is kept beside."""
    if not folder.exists():
        os.rename(temporary, folder)
        return
    is_replaced = _is_whole(folder)
    if is_replaced:  # hidden, so that `prune` removes what a kill leaves of it
        aside = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
    else:
        names = (folder.with_name(f"{folder.name}.damaged-{n}") for n in itertools.count(1))
        aside = next(name for name in names if not name.exists())
    os.rename(folder, aside)
    try:
        os.rename(temporary, folder)
    except OSError:
        os.rename(aside, folder)
        raise
    if is_replaced:
        shutil.rmtree(aside, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True


def delete(folder: Path) -> None:
    """Rename first, so that a kill in the middle leaves no half checkpoint under a valid name."""
    doomed = folder.with_name(f".{folder.name}.deleted-{os.getpid()}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _decode(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        content = reading.parse_json(text)
        version = content["format_version"]
        if version == FORMAT_VERSION:
            found = content.pop("manifest_sha256")
            if seal(content) == text and isinstance(found, str) and content.keys() >= _REQUIRED:
                return content
    except (KeyError, TypeError, ValueError, AttributeError):
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


def _open(path: Path, largest: int) -> Any:
    """Open a regular file that is not larger than it can be."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no regular file")
    if status.st_size > largest:
        raise CheckpointError(
            f"{path} is damaged: it has {status.st_size} bytes where {largest} are the most; use "
            "an earlier checkpoint."
        )
    return path.open("rb")


def _read(path: Path, largest: int) -> bytes:
    try:
        with _open(path, largest) as file:
            return file.read(largest + 1)
    except OSError as error:
        raise _unreadable(path, error) from None


def _compare(path: Path, manifest: Manifest, found: str) -> None:
    if found != manifest.arrays_sha256:
        raise CheckpointError(
            f"{path} is damaged: its bytes are not those that were written; use an earlier "
            "checkpoint."
        ) from ValueError(f"SHA-256 wanted {manifest.arrays_sha256}, found {found}")


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} is wanted and cannot be read ({error.strerror}): use an earlier checkpoint."
    )


def _contradiction(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{folder}: the manifest and the arrays contradict each other, so this checkpoint was not "
        "written by this program; use another."
    )
