from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.parity import OWN, STYLE_UNET, SURFACE_UNET, drawn, parity_case, parity_cases, parity_folder


def test_no_case_at_all_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no parity case"):
        parity_cases(STYLE_UNET, tmp_path)


def test_cases_are_found_by_architecture_in_the_folder_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for end in ("json", "npz"):
        (tmp_path / f"another.{end}").write_bytes((OWN / f"sggan_small.{end}").read_bytes())
    monkeypatch.setenv("STANDIN_PARITY_DIR", str(tmp_path))
    assert parity_folder() == tmp_path
    assert [case.name for case in parity_cases(SURFACE_UNET)] == ["another"]
    assert parity_cases(STYLE_UNET) == []


def test_a_kind_of_case_that_the_project_itself_lacks_is_a_failure() -> None:
    with pytest.raises(LookupError, match="no parity case"):
        parity_cases("another architecture", OWN)


def test_the_projects_own_cases_are_there() -> None:
    assert {case.name for case in parity_cases(STYLE_UNET, OWN)} >= {
        "dp2_cse_small", "dp2_nocse_small", "dp2_face_small", "dp2_cse_full",
    }  # fmt: skip
    assert {case.name for case in parity_cases(SURFACE_UNET, OWN)} >= {"sggan_small", "sggan_full"}


def test_weights_follow_the_rule() -> None:
    values = drawn("to_rgb.bias", {"shape": [3], "mean": 1.0, "std": 0.5})
    rng = np.random.Generator(np.random.PCG64(1_343_303_474))
    assert values.dtype == np.float32
    assert np.array_equal(values, (1.0 + 0.5 * rng.standard_normal(3)).astype(np.float32))
    case = parity_case("dp2_face_small")
    assert {name: array.shape for name, array in case.state().items()} == case.shapes
