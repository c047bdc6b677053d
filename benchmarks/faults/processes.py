"""`ppo-jax` in separate processes, forked after the imports and before JAX has started.

Only the imports are shared; they take longer than the rest of a short run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))

from ppo_jax.apps.reproduce import running  # noqa: E402, F401, the environment comes first
from ppo_jax.apps.run import runner  # noqa: E402, F401, the environment comes first
from ppo_jax.apps.sweep import driver  # noqa: E402, F401, the environment comes first
from ppo_jax.cli import main  # noqa: E402, the environment comes first


class Process:
    """One command in a process that can be signalled."""

    def __init__(self, words: list[str]) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.exit_code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.dup2(self._out.fileno(), 1)
                os.dup2(self._err.fileno(), 2)
                code = main.main(words)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal that killed it; None while it runs."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout_seconds: float = 300.0) -> int:
        until = time.monotonic() + timeout_seconds
        while self.poll() is None:
            if time.monotonic() > until:
                self.signal(signal.SIGKILL)
            time.sleep(0.005)
        return self.exit_code or 0

    def output(self) -> tuple[str, str]:
        """Its output on stdout and stderr."""
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode())
        return texts[0], texts[1]


def finish(words: list[str]) -> dict[str, Any]:
    """Run to the end and return the summary."""
    process = Process(words)
    if (code := process.wait()) != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {code}: {process.output()[1]}")
    return json.loads(process.output()[0])
