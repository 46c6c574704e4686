from __future__ import annotations

from stream.evaluate.figures import MEASURES, Figure, head, shown


def test_values_are_shown_as_their_measure_wants_them() -> None:
    assert shown("fid", Figure(12345.678, 9, "crops")) == "12,345.68"
    assert shown("ap", Figure(0.12345, 9, "pictures")) == "0.123"
    assert shown("fid", Figure(0.0456, 9, "crops")) == "0.046"
    assert shown("ap", None) == "-"


def test_heads_say_which_way_is_better() -> None:
    assert [head(name) for name in ("fid", "diversity", "lpips")] == ["FID ↓", "diversity ↑", "LPIPS"]
    assert all(measure.about and measure.title for measure in MEASURES.values())


def test_a_figure_is_plain_in_json() -> None:
    assert Figure(0.5, 3, "crops", "net", "none", ("a",)).to_json() == {
        "value": 0.5, "count": 3, "of": "crops", "network": "net", "resize": "none", "notes": ["a"],
    }  # fmt: skip
