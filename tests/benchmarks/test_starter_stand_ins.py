"""The picture of stand-ins, of a tiny generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.starter_stand_ins import ROWS, poses, sheet
from tests.export.starter.made_people import SIZE, crops, surface
from tests.export.starter.narrow_people import trained_bundle


def test_below_people_and_what_is_seen_of_them_each_row_is_one_z(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = trained_bundle(tmp_path_factory)
    batch = poses(crops(tmp_path, 6), surface().canonical, bundle, count=3)
    drawn = sheet(bundle, batch)
    assert drawn.size == (3 * SIZE[1], (2 + ROWS) * SIZE[0])
    rows = np.split(np.asarray(drawn), 2 + ROWS)
    hidden = np.concatenate(list(batch.mask[:, 0].numpy() == 0), axis=1)
    assert hidden.any()
    assert (rows[1][hidden] == 128).all()
    for row in rows[2:]:
        # What is known stays; people become others, and not the same with every z.
        assert np.abs(row[~hidden].astype(int) - rows[0][~hidden]).max() <= 1
        assert (row[hidden] != rows[0][hidden]).any()
    assert (rows[2] != rows[3]).any()
