"""A benchmark's report as one page: no script, nothing that is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from stream.bench.markup import Markup, element, join
from stream.bench.plots import Line, histogram_plot, line_plot, timeline_plot
from stream.bench.records import SHARES, Case, Figures, Record, Settings, Share, Spread
from stream.bench.style import STYLE
from stream.bench.text import (
    NOT_MEASURED,
    amount,
    cores,
    graph,
    method,
    number,
    on_cpu,
    persons,
    remarks,
    seeded_bundles,
    series,
    short,
    spread,
    tick,
)
from stream.pipeline import STAGES

#: Nothing may be loaded, not even by a page that was tampered with.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
#: So many cases are shown opened.
_OPEN: Final = 1


def render_html(record: Record) -> str:
    """The report as a page that needs nothing beside itself."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"Standin bench, {record.made[:10]}"),
        # A style sheet of our own has nothing to escape, and must not be.
        element("style", Markup(STYLE)),
    )
    cases = [_case(case, found, opened=index < _OPEN) for index, (case, found) in enumerate(record.measured)]
    body = element(
        "body",
        _header(record),
        element(
            "main",
            _remarks(record),
            _crowd(record),
            _batches(record),
            _overview(record),
            *cases,
            _missing(record),
            _about(record),
        ),
        element("footer", f"standin bench, schema version {record.schema_version}"),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _header(record: Record) -> Markup:
    machine, clip = record.machine, record.clip
    processor = f"{machine.processor}, {cores(machine)}, {number(machine.memory_gib)} GiB"
    seeded = seeded_bundles(record)
    gpu = f"{machine.gpu} (driver {machine.driver or 'unknown'})" if machine.gpu else "no NVIDIA GPU that answers"
    return element(
        "header",
        element("h1", "Standin bench"),
        element("p", f"{record.made} \N{MIDDLE DOT} {processor} \N{MIDDLE DOT} {gpu}"),
        element("p", f"{clip.about}, {clip.width}x{clip.height}, {number(clip.rate)} frames per second"),
        element("p", f"Random weights, not trained ones: {', '.join(seeded)}", class_="seeded") if seeded else None,
    )


def _remarks(record: Record) -> Markup | None:
    texts = remarks(record)
    if not texts:
        return None
    listed = element("ul", *(element("li", text) for text in texts))
    return element("section", element("h2", "Before you read the figures"), listed, class_="card remarks")


def _crowd(record: Record) -> Markup:
    """Frames per second against persons."""
    lines: dict[str, list[tuple[float, Spread]]] = {}
    for case, found in record.measured:
        if case.persons is not None:
            lines.setdefault(series(case), []).append((case.persons, found.flat_out.rate))
    if any(len(points) > 1 for points in lines.values()):
        made = [Line(name, tuple(points)) for name, points in lines.items()]
        shown = line_plot(made, below="persons in every frame", beside="frames per second, flat out")
        note = "Dots are medians, bars go from the slowest run to the fastest."
    else:
        shown, note = None, f"{NOT_MEASURED.capitalize()}: ask for several numbers, such as --persons 0,1,2,4,8."
    return element(
        "section",
        element("h2", "Frames per second against persons"),
        element("p", note, class_="note"),
        shown,
        class_="card",
    )


def _batches(record: Record) -> Markup | None:
    """Crops per second against the batch, of generators by themselves; None where there was one batch alone."""
    lines: dict[str, dict[float, Spread]] = {}
    for case, found in record.measured:
        for run in found.engines:
            # Heads take as many boxes as there are, which is no choice of batch.
            if run.graph.startswith("generator") and run.rate is not None:
                name = f"{graph(run)}, {case.device}, {case.precision}"
                # Two presets may have the same generator: the first time counts.
                lines.setdefault(name, {}).setdefault(run.batch, run.rate)
    several = [Line(name, tuple(points.items())) for name, points in lines.items() if len(points) > 1]
    if not several:
        return None
    return element(
        "section",
        element("h2", "Crops per second against batch"),
        element(
            "p",
            "Generators by themselves. Dots are medians, bars go from the slowest run to the fastest.",
            class_="note",
        ),
        line_plot(several, below="crops in one run", beside="crops per second"),
        class_="card",
    )


def _overview(record: Record) -> Markup:
    columns = (
        "preset",
        "device",
        "precision",
        "persons",
        "frames/s",
        "latency p50",
        "p95",
        "start-up",
        "memory",
        "GPU",
    )
    rows = []
    for case, found in record.measured:
        latency = found.paced.latency
        rows.append(
            (
                case.preset,
                case.device,
                case.precision,
                persons(case),
                spread(found.flat_out.rate),
                spread(latency.get("p50"), "ms"),
                spread(latency.get("p95"), "ms"),
                amount(found.start_up.total, "s"),
                amount(found.memory.peak, "MiB"),
                amount(found.memory.gpu, "MiB"),
            )
        )
    note = "Frame rates are flat out, latencies at a camera's pace; medians, with the lowest and the highest run."
    return element(
        "section",
        element("h2", "All cases"),
        element("p", note, class_="note"),
        _table(columns, rows, texts=4) if rows else element("p", "No case could be measured."),
        class_="card",
    )


def _case(case: Case, found: Figures, *, opened: bool) -> Markup:
    paced = found.paced
    marks = [(share, value.median) for share in SHARES if (value := paced.latency.get(share)) is not None]
    pace = (
        f"{sum(paced.histogram.counts)} frames at {number(paced.rate)} frames per second, from when each was due until "
        f"it was written; that includes {found.lookahead} frames of lookahead."
    )
    order = "Frames one after the other, flat out. Gaps are time that a frame waited, in a queue or for lookahead."
    stages = [stage for stage in STAGES if stage in {span.stage for span in found.flat_out.timeline}]
    plots = element(
        "div",
        element(
            "div",
            element("h3", "Latency at a camera's pace"),
            element("p", pace, class_="note"),
            histogram_plot(paced.histogram, below="ms", marks=marks),
        ),
        element(
            "div",
            element("h3", "Stages of some frames"),
            element("p", order, class_="note"),
            timeline_plot(found.flat_out.timeline, stages) if stages else element("p", NOT_MEASURED),
        ),
        class_="pair",
    )
    tables = element("div", element("div", *_stages(found)), element("div", *_engines(found)), class_="tables")
    rate = f"{number(found.flat_out.rate.median)} frames per second"
    return element(
        "details",
        element("summary", element("h2", f"{series(case)}, persons: {persons(case)}"), element("span", rate)),
        element("div", _tiles(found), plots, tables, _facts(_content(found))),
        class_="card",
        open="open" if opened else None,
    )


def _tiles(found: Figures) -> Markup:
    latency, memory, power = found.paced.latency, found.memory, found.power
    start = found.start_up
    parts = f"process {number(start.process)}, engines {number(start.engines)}, first runs {number(start.first_runs)}"
    tiles: list[tuple[str, Spread | float | None, str, str]] = [
        ("flat out", found.flat_out.rate, "frames/s", ""),
        ("latency at a pace, p50", latency.get("p50"), "ms", ""),
        ("latency at a pace, p95", latency.get("p95"), "ms", ""),
        ("latency at a pace, p99", latency.get("p99"), "ms", ""),
        ("start-up", start.total, "s", parts),
        ("memory, peak", memory.peak, "MiB", f"in the end {amount(memory.resident, 'MiB')}"),
        ("GPU memory, peak", memory.gpu, "MiB", f"before {amount(memory.gpu_before, 'MiB')}"),
        ("GPU power", power.gpu, "W", "flat out"),
        ("processor power", power.processor, "W", "flat out"),
    ]
    return element("dl", *(_tile(*tile) for tile in tiles), class_="tiles")


def _tile(name: str, value: Spread | float | None, unit: str, more: str) -> Markup:
    if value is None:
        return element("div", element("dt", name), element("dd", NOT_MEASURED, class_="none"))
    if isinstance(value, Spread):
        more = f"{number(value.lowest)} to {number(value.highest)}" if value.runs > 1 else "one run"
        value = value.median
    shown = element("dd", number(value), " ", element("small", unit), element("span", more, class_="more"))
    return element("div", element("dt", name), shown)


def _stages(found: Figures) -> Iterable[Markup]:
    def shares(latency: Mapping[Share, Spread]) -> Iterator[str]:
        return (number(latency[share].median) if share in latency else NOT_MEASURED for share in SHARES)

    rows = [(name, *shares(stage.latency), f"{stage.busy.median:.0%}") for name, stage in found.flat_out.stages.items()]
    rows.append(("all, with waiting", *shares(found.flat_out.latency), ""))
    yield element("h3", "Stages, flat out")
    together = f"up to {found.parallel} are looked at side by side, and {found.painting} painted"
    written = "" if found.encoder is None else f"; {found.encoder} encodes"
    yield element("p", f"Milliseconds for a frame; {together}{written}.", class_="note")
    yield _table(("stage", *SHARES, "busy"), rows, texts=1)


def _engines(found: Figures) -> Iterable[Markup]:
    yield element("h3", "Graphs by themselves")
    rows = [
        (
            graph(run),
            short(run.provider),
            run.inputs,
            str(run.batch),
            spread(run.milliseconds),
            NOT_MEASURED if run.rate is None else number(run.rate.median),
            NOT_MEASURED if run.on_device is None else spread(run.on_device),
            on_cpu(run),
        )
        for run in found.engines
    ]
    if rows:
        note = "Milliseconds for one run, on all threads that it gets; pictures, boxes or crops in a second."
        yield element("p", note, class_="note")
        columns = ("graph", "ran on", "input", "batch", "ms", "a second", "ms without copies", "nodes on the CPU")
        # The last ones are for what was to run elsewhere.
        elsewhere = any(run.nodes is not None or run.on_device is not None for run in found.engines)
        shown = len(columns) if elsewhere else len(columns) - 2
        yield _table(columns[:shown], (row[:shown] for row in rows), texts=3)
    elif not found.engines_missing:
        yield element("p", "Measured once, in the first case of this device and precision.", class_="note")
    if found.engines_missing:
        yield element("ul", *(element("li", f"{NOT_MEASURED}: {text}") for text in found.engines_missing))


def _content(found: Figures) -> Sequence[tuple[str, str]]:
    seen = found.content
    persons, faces, replaced = (tick(round(count, 2)) for count in (seen.persons, seen.faces, seen.generated))
    return (
        ("in a frame", f"{persons} persons and {faces} faces found, {replaced} replaced by stand-ins, on average"),
        ("withheld", f"{seen.withheld} frames{': ' if seen.reasons else ''}{'; '.join(seen.reasons)}"),
        ("ran on", ", ".join(f"{graph}: {short(provider)}" for graph, provider in found.providers.items())),
        *((f"bundle {b.name}", f"{b.weights} (sha256 of its manifest {b.digest[:12]})") for b in found.bundles),
    )


def _missing(record: Record) -> Markup | None:
    rows = [
        (r.case.preset, r.case.device, r.case.precision, persons(r.case), r.reason or "")
        for r in record.results
        if r.figures is None
    ]
    if not rows:
        return None
    table = _table(("preset", "device", "precision", "persons", "reason"), rows, texts=5)
    return element("section", element("h2", "Not measured"), table, class_="card")


def _looked_at(settings: Settings) -> str:
    size = "as large as the preset has it" if settings.detect_size is None else f"{settings.detect_size} pixels at most"
    return size if settings.tiles == 1 else f"{size}, and {settings.tiles} x {settings.tiles} parts of each frame"


def _about(record: Record) -> Markup:
    machine = record.machine
    facts = (
        ("processor", f"{machine.processor}, {cores(machine)}"),
        ("governor", machine.governor or "the system does not say"),
        ("load before", NOT_MEASURED if machine.load is None else number(machine.load)),
        ("memory", f"{number(machine.memory_gib)} GiB"),
        ("system", machine.system),
        ("GPU", f"{machine.gpu}, driver {machine.driver or 'unknown'}" if machine.gpu else "none that answers"),
        ("threads", "one per core" if record.settings.threads is None else str(record.settings.threads)),
        (
            "detectors",
            "floating point" if record.settings.detector_precision == "fp32" else "integers on a CPU, if any",
        ),
        ("pictures for detectors", _looked_at(record.settings)),
        *record.versions.items(),
    )
    how = [element("p", text, class_="note") for text in method(record)]
    return element(
        "section",
        element("h2", "How it was measured"),
        *how,
        element("h2", "Machine and versions"),
        _facts(facts),
        class_="card",
    )


def _facts(facts: Iterable[tuple[str, str]]) -> Markup:
    return element("dl", *(join(element("dt", k), element("dd", v)) for k, v in facts), class_="facts")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> Markup:
    """A table whose first columns are texts, the others numbers."""
    head = element("tr", *(element("th", c, class_="n" if i >= texts else None) for i, c in enumerate(columns)))
    made = [element("tr", *(_cell(v, i, len(columns), texts) for i, v in enumerate(row))) for row in rows]
    return element("div", element("table", element("thead", head), element("tbody", *made)), class_="scroll")


def _cell(text: str, column: int, columns: int, texts: int) -> Markup:
    value, bracket, more = text.partition(" (")
    if column < texts or not bracket:
        kind = "n" if column >= texts else "text" if column == columns - 1 else None
        return element("td", text, class_=kind)
    return element("td", value, " ", element("small", f"({more}"), class_="n")
