"""The door between devices and host."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ppo_jax.distributed import door
from ppo_jax.kernels.packing import MetricTable


@pytest.mark.parametrize(
    ("is_cpu", "length", "width"), [(False, 3, 4), (False, 0, 1), (False, 5, 8), (True, 3, 8)]
)
def test_an_accelerator_sends_no_more_rows_than_the_next_power_of_two(
    monkeypatch, is_cpu: bool, length: int, width: int
) -> None:
    monkeypatch.setattr(door, "is_cpu_device", lambda device: is_cpu)
    values = np.arange(48.0, dtype=np.float32).reshape(2, 8, 3)
    found = door.fetch_rows(MetricTable(jnp.asarray(values), ("a", "b", "c")), length)
    assert isinstance(found.values_by_row, np.ndarray)
    np.testing.assert_array_equal(found["b"], values[:, :width, 1])
