"""Two records of `standin bench` side by side: what became faster, what slower, and what is only noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from engines.errors import UsageError
from stream.bench.records import Case, Figures, Record, Spread
from stream.bench.text import BUSY, KNOWN_FROM, Figure, figures

#: Runs from which on their range says surely what is noise.
_SURE_FROM: Final = 10

Verdict = Literal["better", "worse", "within the noise", "noise unknown"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one case in both records.

    Attributes:
        case: that was measured.
        figure: of the second record.
        before: of the first.
        after: of the second.
        ratio: second over first, None where the first is 0.
        verdict: `within the noise` where the runs of both overlap, or are fewer than ten and no further apart than
            those of either among themselves; `noise unknown` where one of them has fewer than three runs.
    """

    case: Case
    figure: Figure
    before: Spread
    after: Spread
    ratio: float | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Compared:
    """Two records, compared.

    Attributes:
        rows: figures that both have.
        missing: what one of them lacks, for people.
        withheld: where the second withheld more frames, for people.
        warnings: why figures may differ for other reasons than the program.
    """

    rows: tuple[Comparison, ...]
    missing: tuple[str, ...]
    withheld: tuple[str, ...]
    warnings: tuple[str, ...]

    def slower_than(self, ratio: float) -> tuple[str, ...]:
        """The cases whose frame rate fell below so much of the first record's, or cannot be compared with it.

        Those are cases that were not measured, and those that withheld more frames: that is faster than work.
        """
        rates = [row for row in self.rows if row.figure.unit == "fps"]
        fell = [
            f"{row.case}: {row.ratio:.3f} of the frame rate ({row.verdict})"
            for row in rates
            if row.ratio is not None and row.ratio < ratio
        ]
        return (*fell, *self.missing, *self.withheld)


def compare(before: Record, after: Record) -> Compared:
    """All figures of cases that both records have.

    Raises:
        UsageError: they have no measured case in common.
    """
    first, second = dict(before.measured), dict(after.measured)
    common = [case for case in first if case in second]
    if not common:
        raise UsageError(
            "the records have no measured case in common: "
            f"{_names(list(first))} in the first, {_names(list(second))} in the second"
        )
    rows: list[Comparison] = []
    for case in common:
        known = {figure.name: figure.value for figure in figures(first[case])}
        for figure in figures(second[case]):
            old = known.get(figure.name)
            if old is not None and figure.value is not None:
                rows.append(_comparison(case, figure, old, figure.value))
    missing = [f"{case}: not measured in the second record" for case in first if case not in second]
    withheld = [text for case in common if (text := _more_withheld(case, first[case], second[case])) is not None]
    return Compared(tuple(rows), tuple(missing), tuple(withheld), tuple(_warnings(before, after)))


def _more_withheld(case: Case, before: Figures, after: Figures) -> str | None:
    was, now = _share_withheld(before), _share_withheld(after)
    if now <= was:
        return None
    return f"{case}: {now:.1%} of the frames were withheld, {was:.1%} in the first record, which is faster than work"


def _share_withheld(found: Figures) -> float:
    """Of the frames of all runs, as nearly as the record tells how many there were."""
    return found.content.withheld / max(1, found.flat_out.frames * found.flat_out.rate.runs)


def _comparison(case: Case, figure: Figure, before: Spread, after: Spread) -> Comparison:
    ratio = after.median / before.median if before.median else None
    return Comparison(case, figure, before, after, ratio, verdict(before, after, better=figure.better))


def verdict(before: Spread, after: Spread, *, better: str) -> Verdict:
    """What a difference means.

    Args:
        before: of the first record.
        after: of the second.
        better: `higher` or `lower`.
    """
    if min(before.runs, after.runs) < KNOWN_FROM:
        return "noise unknown"
    apart = max(after.lowest - before.highest, before.lowest - after.highest)
    # Ranges of a few runs lie side by side by chance often enough: of three and three, one pair in ten.
    few = min(before.runs, after.runs) < _SURE_FROM
    if apart <= (max(before.highest - before.lowest, after.highest - after.lowest) if few else 0):
        return "within the noise"
    return "better" if (after.median > before.median) == (better == "higher") else "worse"


def _names(cases: Sequence[Case]) -> str:
    return "; ".join(map(str, cases)) or "none"


def _warnings(before: Record, after: Record) -> list[str]:
    made: list[str] = []
    pairs: tuple[tuple[str, Any, Any, tuple[str, ...]], ...] = (
        ("machine", before.machine, after.machine, ("load",)),
        ("clip", before.clip, after.clip, ()),
        ("setting", before.settings, after.settings, ()),
    )
    for what, old, new, left_out in pairs:
        for name in type(old).model_fields:
            was, now = getattr(old, name), getattr(new, name)
            if name not in left_out and was != now:
                made.append(f"another {what}: {name} was {was}, is {now}")
    for name in sorted({*before.versions, *after.versions}):
        was, now = before.versions.get(name), after.versions.get(name)
        if was != now and name != "standin":
            made.append(f"another version: {name} was {was or 'not there'}, is {now or 'not there'}")
    for which, record in (("first", before), ("second", after)):
        load = record.machine.load
        if load is not None and load > BUSY * record.machine.cores:
            made.append(
                f"the machine was busy when the {which} was made: {load} processes on {record.machine.cores} cores"
            )
    return made + _other_bundles(before, after)


def _other_bundles(before: Record, after: Record) -> list[str]:
    known = {(case, b.name): b.digest for case, found in before.measured for b in found.bundles}
    changed = {
        b.name
        for case, found in after.measured
        for b in found.bundles
        if known.get((case, b.name), b.digest) != b.digest
    }
    return [f"another bundle goes by the name {name}" for name in sorted(changed)]
