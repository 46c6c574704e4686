from __future__ import annotations

import io

from rich.console import Console

from stream.anonymizer import Anonymized
from stream.frame import AWAY
from stream.metrics import Latencies, Snapshot
from stream.pipeline import Summary
from stream.progress import RunProgress, render_summary
from stream.regions import Regions
from stream.run import RunResult
from tests.fakes import MemorySource, frames, noise


def console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100, soft_wrap=False), text


def item() -> Anonymized:
    return Anonymized(frames(noise(1))[0], Regions.empty())


def test_a_pipe_gets_no_progress_bar() -> None:
    target, text = console()
    with RunProgress(target) as progress:
        progress.start(MemorySource(frames(noise(3))).info)
        progress.advance(item())
    assert text.getvalue() == ""


def test_a_terminal_gets_one_with_the_name_of_the_input() -> None:
    target, text = console(terminal=True)
    with RunProgress(target) as progress:
        # Before the input is open nothing can advance.
        progress.advance(item())
        progress.start(MemorySource(frames(noise(3))).info)
        progress.advance(item())
        progress._progress.refresh()
    assert "memory" in text.getvalue()
    assert "1/3" in text.getvalue()


def render(summary: Summary, snapshot: Snapshot | None = None, **parts: tuple[str, ...]) -> str:
    target, text = console()
    named: dict[str, tuple[str, ...]] = {"problems": (), "dropped": (), "notes": ()} | parts
    result = RunResult(summary, named["problems"], named["dropped"], named["notes"], snapshot)
    render_summary(target, result, "out[bold].mp4")
    return text.getvalue()


def test_an_empty_run_is_summed_up_too() -> None:
    text = render(Summary())
    assert "0 (0 withheld)" in text
    assert "none in 0 tracks" in text
    assert "not a single frame was written" in text


def test_brackets_in_names_are_not_markup() -> None:
    assert "out[bold].mp4" in render(Summary(frames=1))


def test_the_summary_says_what_was_found_withheld_and_dropped_and_where_the_time_went() -> None:
    summary = Summary(
        frames=100,
        regions={"face": 7, "plate": 2},
        held=3,
        looked_ahead=4,
        manual=5,
        withheld=2,
        reasons={"detection failed: [x]": 2},
        tracks=6,
        seconds=4.0,
        busy={"decode": 1.0, "detect": 4.0},
    )
    text = render(summary, dropped=("audio",) * 20, notes=("8 bits",))
    assert "100 (2 withheld)" in text
    assert "7 face, 2 plate in 6 tracks" in text
    assert "3, looked ahead 4, by hand 5" in text
    assert "25.0 frames per second, 4.0 s" in text
    assert "decode 1.0 s (25%), detect 4.0 s (100%)" in text
    assert "withheld frames are flat grey: detection failed: [x] (2)" in text
    assert text.count("audio") == 12
    assert "..." in text
    assert "8 bits" in text


def test_what_is_to_be_seen_instead_is_said() -> None:
    summary = Summary(frames=9, withheld=7, reasons={AWAY: 5, "detection failed": 2})
    assert f"withheld frames are flat grey: {AWAY} (5); detection failed (2)" in render(summary)
    summary.holds = True
    text = render(summary)
    assert "withheld frames are flat grey: detection failed (2)" in text
    assert f"withheld frames show the last anonymized picture: {AWAY} (5)" in text
    summary.reasons = {AWAY: 7}
    assert "grey" not in render(summary)


def test_latencies_of_live_runs_are_shown() -> None:
    text = render(Summary(frames=3), Snapshot(latency=Latencies(recent=(0.12, 0.345, 1.2))))
    assert "120 ms at the median, 345 at 95 %, 1200 at 99 %" in " ".join(text.split())
    assert "latency" not in render(Summary(frames=3), Snapshot())
