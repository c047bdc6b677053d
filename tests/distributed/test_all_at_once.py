"""Every two features together, in every layout: rows of a covering array of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from covering import all_pairs, covering_array, excluded, pairs_of, train_row


def test_the_rows_cover_every_pair_that_may_meet() -> None:
    rows = covering_array()
    covered = {pair for row in rows for pair in pairs_of(row)}
    assert covered == all_pairs()
    assert not covered & excluded()
    assert len(rows) < 100  # 80 are needed: ten objectives with eight policies


@pytest.mark.slow
def test_layouts_train_alike_with_masks_a_dict_and_a_memory(tmp_path: Path) -> None:
    """A seed over two devices, and beside another seed on one; `covering.py` trains all rows."""
    row = next(
        row
        for row in covering_array()
        if row["layout"] == "one seed on two devices"
        and row["memory"] == "gru"  # the cheapest to compile
        and row["objective"] not in ("trpo", "npg")
        and row["mask"] == "yes"
    )
    alike = {**row, "observation": "dict", "optimizer": "adam", "precision": "float32"}
    spread = train_row(alike, tmp_path)[1]
    beside = train_row({**alike, "layout": "two seeds in blocks"}, tmp_path)[1]
    # Adam turns the last bits of tiny gradients into more; other draws differ by 1e-2.
    np.testing.assert_allclose(beside, spread, atol=2e-3)
