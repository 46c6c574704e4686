from __future__ import annotations

import io

import numpy as np
import pytest

from export.arrays import Arrays, array_files, declared_arrays

ARRAYS: Arrays = {
    "centres": (np.arange(6, dtype=np.float32).reshape(2, 3), "one a row"),
    "order": (np.array([2, 0, 1]), "of something"),
}


def test_what_is_declared_is_what_the_files_hold() -> None:
    declared, files = declared_arrays(ARRAYS), array_files(ARRAYS)
    assert {entry.file for entry in declared.values()} == set(files)
    for name, (values, meaning) in ARRAYS.items():
        entry = declared[name]
        held = np.load(io.BytesIO(files[entry.file]), allow_pickle=False)
        np.testing.assert_array_equal(held, values)
        assert (entry.dtype, entry.shape, entry.meaning) == (str(held.dtype), held.shape, meaning)


def test_without_arrays_there_is_nothing_to_declare_or_to_write() -> None:
    assert declared_arrays({}) == {}
    assert array_files({}) == {}


def test_what_would_have_to_be_run_to_be_read_is_no_array() -> None:
    with pytest.raises(ValueError, match="pickle"):
        array_files({"things": (np.array([{}], object), "anything")})
