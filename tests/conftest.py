"""What must be true before any test imports jax."""

from __future__ import annotations

import os
from pathlib import Path

# Two devices, so that sharding is tested on a machine with one.
_flag = "--xla_force_host_platform_device_count"
if _flag not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}=2".strip()

_root = Path(__file__).resolve().parent.parent

# The commands that tests start, from whatever folder, run this checkout.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_root), os.environ.get("PYTHONPATH")]))

# One compile cache for all test workers and for the commands that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_root / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
