from __future__ import annotations

import pytest

from engines.errors import UsageError
from stream.bench.compare import Verdict, compare, verdict
from stream.bench.records import BundleNote, Record, Result
from tests.stream.bench.samples import case, figures, record, spread


def records(before: float, after: float, **changes: object) -> tuple[Record, Record]:
    first, second = (record(Result(case=case(4), figures=figures(rate, noise=0.02))) for rate in (before, after))
    return first, second.model_copy(update=changes)


@pytest.mark.parametrize(
    ("before", "after", "better", "expected"),
    [
        (spread(10), spread(30), "higher", "better"),
        (spread(10), spread(30), "lower", "worse"),
        (spread(30), spread(10), "higher", "worse"),
        (spread(30), spread(10), "lower", "better"),
        (spread(10), spread(11.5), "higher", "within the noise"),
        (spread(11.5), spread(10), "higher", "within the noise"),
        (spread(10), spread(10), "lower", "within the noise"),
        # Side by side, but no further apart than the runs of each.
        (spread(10), spread(12.5), "higher", "within the noise"),
        (spread(10, runs=10), spread(12.5, runs=10), "higher", "better"),
        (spread(10, runs=10), spread(11, runs=10), "higher", "within the noise"),
        (spread(10), spread(30, runs=1), "higher", "noise unknown"),
        (spread(10), spread(30, runs=2), "higher", "noise unknown"),
        (spread(10, runs=1), spread(30), "higher", "noise unknown"),
    ],
)
def test_a_difference_means_something_only_beyond_the_noise(
    before: object, after: object, better: str, expected: Verdict
) -> None:
    assert verdict(before, after, better=better) == expected  # type: ignore[arg-type]


def test_ratios_are_second_over_first() -> None:
    found = compare(*records(40, 30))
    (rate,) = [row for row in found.rows if row.figure.unit == "fps"]
    assert rate.ratio == pytest.approx(0.75)
    assert rate.verdict == "worse"
    same = [row for row in found.rows if row.figure.unit != "fps"]
    assert len(same) > 8
    assert {row.ratio for row in same} == {1.0}
    assert found.warnings == found.missing == ()


def test_what_was_measured_in_one_only_is_not_compared() -> None:
    first, second = records(40, 30)
    assert not [row for row in compare(first, second).rows if "GPU" in row.figure.name]


def test_a_gate_names_the_cases_that_fell_below() -> None:
    found = compare(*records(40, 30))
    assert found.slower_than(0.7) == ()
    (text,) = found.slower_than(0.8)
    assert "4 persons" in text
    assert "0.750" in text


def test_a_case_that_was_not_measured_again_does_not_pass_the_gate() -> None:
    both = record(Result(case=case(1), figures=figures()), Result(case=case(2), figures=figures()))
    one = record(Result(case=case(1), figures=figures()), Result(case=case(2), reason="no driver"))
    found = compare(both, one)
    assert (
        found.missing == found.slower_than(0.1) == ("starter, cpu, fp32, 2 persons: not measured in the second record",)
    )
    assert compare(one, both).missing == ()


def test_withheld_frames_are_no_speed() -> None:
    usual = figures(40, noise=0.02)
    fast = figures(80, noise=0.02)
    withholding = fast.model_copy(update={"content": fast.content.model_copy(update={"withheld": 27})})
    before, after = (record(Result(case=case(4), figures=found)) for found in (usual, withholding))
    found = compare(before, after)
    (text,) = found.withheld
    assert found.slower_than(0.9) == (text,)
    assert "4 persons: 10.0% of the frames were withheld, 0.0% in the first record" in text
    # As many as before are nothing new, nor are fewer.
    assert compare(after, after).slower_than(0.9) == ()
    assert compare(after, before).withheld == ()


def test_records_without_a_common_case_are_refused() -> None:
    one, other = record(Result(case=case(1), figures=figures())), record(Result(case=case(2), figures=figures()))
    with pytest.raises(UsageError, match=r"1 person in.*2 persons in"):
        compare(one, other)


def test_other_machines_settings_clips_and_versions_are_named() -> None:
    first, second = records(40, 40)
    changed = second.model_copy(
        update={
            "machine": second.machine.model_copy(update={"processor": "another one", "load": 2.0}),
            "settings": second.settings.model_copy(update={"encode": False}),
            "clip": second.clip.model_copy(update={"width": 1920}),
            "versions": {"standin": "2.0", "numpy": "3.0", "av": "1"},
        }
    )
    texts = compare(first, changed).warnings
    for part in (
        "processor was a processor",
        "encode was True",
        "width was 640",
        "numpy was 2.0, is 3.0",
        "av was not",
    ):
        assert any(part in text for text in texts), part
    assert any("busy when the second" in text for text in texts)
    # Another release is what one compares.
    assert not any("standin was" in text for text in texts)


def test_another_bundle_of_the_same_name_is_named() -> None:
    other = (BundleNote(name="tiny", digest="cd" * 32, weights="a test: code"),)
    first = record(Result(case=case(), figures=figures()))
    second = record(Result(case=case(), figures=figures(bundles=other)))
    assert compare(first, second).warnings == ("another bundle goes by the name tiny",)
