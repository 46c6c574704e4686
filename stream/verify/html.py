"""The report of a look at a result: one page that needs nothing else, and shows nobody unless asked to."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Final

from stream.verify.findings import MEASURES, Finding, find, measure
from stream.verify.look import Verification
from stream.verify.numbers import shown
from stream.verify.perceptual import weighted
from stream.verify.plots import Line, Plot, draw
from stream.verify.record import FileRecord
from stream.verify.style import STYLE
from stream.verify.thumbs import thumbnails
from stream.verify.tracks import colour_steps, flicker, raw_runs

#: What a page shows at most; the JSON has all of it.
_FINDINGS, _CASES, _FILES, _ROWS = 200, 12, 24, 500
_COLUMNS: Final = ("raw_area", "raw_frames", "missing_frames", "shifted_frames", "streams_left", "metadata_left")
#: The page may show pictures that are in it, and do nothing else.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_YES: Final = '<path d="M6 12.5l4 4 8-9" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round"/>'
_NO: Final = '<path d="M12 6.5v7M12 17v.4" stroke="currentColor" stroke-width="2.6" stroke-linecap="round"/>'


def page(result: Verification, *, show: bool = False) -> str:
    """The whole page.

    Args:
        result: what was found.
        show: whether the worst cases are shown as they are.
    """
    title = f"{result.anonymized.name}: what is left of {result.original.name}"
    sections = (_head(result), _measures(result), _findings(result), _cases(result, show=show), *_files(result))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(section for section in (*sections, _about(result, show=show)) if section)
        + "\n</main></body></html>\n"
    )


def _head(result: Verification) -> str:
    frames = sum(len(file.frames) for file in result.files)
    people = sum(len(frame.regions) for file in result.files for frame in file.frames)
    seen = f"{frames:,} frames compared, {people:,} faces and persons seen by {', '.join(result.detectors)}"
    if result.clean:
        verdict, tone, sign = "Nothing over its limit", "", _YES
    else:
        over = ", ".join(name.replace("_", " ") for name in result.faults)
        verdict, tone, sign = f"Over the limit: {over}", " bad", _NO
    icon = f'<svg width="30" height="30" viewBox="0 0 24 24" aria-hidden="true"><circle cx="12" cy="12" r="10.6" fill="none" stroke="currentColor" stroke-width="1.6"/>{sign}</svg>'  # noqa: E501
    return (
        f'<header class="head"><h1>What is left of the original</h1><p class="names"><b>'
        f"{html.escape(result.original.name)}</b> &rarr; <b>{html.escape(result.anonymized.name)}</b></p>"
        f'<div class="verdict{tone}">{icon}<div>{html.escape(verdict)}<small>{html.escape(seen)}</small></div></div>'
        "</header>"
    )


def _measures(result: Verification) -> str:
    cards = []
    for name, value in result.measures.items():
        limit = result.settings.limits.get(name)
        tone = "" if limit is None else " bad" if name in result.faults else " good"
        said = "no limit" if limit is None else f"limit {shown(name, limit)}"
        cards.append(
            f'<div class="card measure{tone}"><span class="name">{html.escape(name.replace("_", " "))}</span>'
            f"<b>{html.escape(shown(name, value))}</b><small>{html.escape(MEASURES[name])}</small>"
            f'<small class="limit">{html.escape(said)}</small></div>'
        )
    return f'<section class="measures">{"".join(cards)}</section>'


def _findings(result: Verification) -> str:
    if not result.findings:
        return '<section class="card"><h2>Findings</h2><p class="quiet">None.</p></section>'
    several = len(result.files) > 1
    # What is over its limit first; within that, the order in which it was found.
    ordered = sorted(result.findings, key=lambda finding: finding.measure not in result.faults)
    lines = [_finding(finding, result, several=several) for finding in ordered[:_FINDINGS]]
    more = len(ordered) - _FINDINGS
    rest = f'<p class="quiet">and {more:,} more; the JSON has all of them</p>' if more > 0 else ""
    return f'<section class="card"><h2>Findings</h2><ul class="findings">{"".join(lines)}</ul>{rest}</section>'


def _finding(finding: Finding, result: Verification, *, several: bool) -> str:
    tone = ' class="bad"' if finding.measure in result.faults else ""
    where = f"<small>{html.escape(finding.file)}</small><br>" if several else ""
    return f"<li{tone}><i></i><span>{where}{html.escape(finding.text)}</span></li>"


def _cases(result: Verification, *, show: bool) -> str:
    found = [(file, case) for file in result.files for case in file.cases]
    if not found:
        return ""
    found.sort(key=lambda pair: -pair[1].badness)
    cards = []
    for file, case in found[:_CASES]:
        pictures = "".join(
            f'<figure><img src="{uri}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
            for caption, uri in thumbnails(case, show=show)
        )
        name = f"<br>{html.escape(file.name)}" if len(result.files) > 1 else ""
        cards.append(
            f'<div class="case"><div class="pictures">{pictures}</div><p><b>{case.region.share:.0%} of a '
            f"{case.region.kind.label} raw</b>frame {case.index}, {case.time:.2f} s, track {case.region.track}{name}"
            "</p></div>"
        )
    hint = "" if show else " Blurred: the page holds nobody. With --show they are as they are."
    wide = " shown" if show else ""
    return (
        '<section class="worst"><h2>Worst cases</h2><p class="quiet">The worst of every time that somebody was left '
        f'raw; red is what looks as in the original.{hint}</p><div class="cases{wide}">{"".join(cards)}</div></section>'
    )


def _files(result: Verification) -> Iterator[str]:
    if len(result.files) > 1 or result.missing or result.extra:
        yield _table(result)
    drawn = [file for file in result.files if len(file.frames) > 1]
    # Those in which something was found first, and no more than a page can bear.
    drawn.sort(key=lambda file: not find(file))
    if not drawn:
        return
    blocks = []
    for number, file in enumerate(drawn[:_FILES]):
        plots = "".join(map(draw, _plots(file, result)))
        if len(drawn) == 1:
            blocks.append(f'<div class="plots">{plots}</div>')
        else:
            opened = " open" if number == 0 else ""
            name = html.escape(file.name)
            blocks.append(
                f'<details{opened}><summary><h3>{name}</h3></summary><div class="plots">{plots}</div></details>'
            )
    yield f'<section class="card"><h2>Over time</h2>{"".join(blocks)}</section>'


def _plots(file: FileRecord, result: Verification) -> Iterator[Plot]:
    bands = [(run.frames[0].time, run.frames[-1].time + file.step) for run in raw_runs(file)]
    raw = [(frame.time, frame.raw_share) for frame in file.frames]
    limit = result.settings.limits.get("raw_area")
    yield Plot(
        "Area of faces and persons that is raw", [Line("raw", "bad", raw, True, True)], 1.0, "%", bands, limit or None
    )
    before = [(frame.time, float(len(frame.regions))) for frame in file.frames]
    after = [(frame.time, float(frame.found)) for frame in file.frames]
    yield Plot(
        "Faces and persons that detectors find",
        [Line("in the original", "low", before, True, True), Line("in the output", "high", after, stepped=True)],
    )
    steps = colour_steps(file)
    highest = max((value for _, value in steps), default=0.0)
    yield Plot(
        "Largest step of a stand-in's colours", [Line("output", "high", steps, filled=True)], max(0.05, highest), "%"
    )


def _table(result: Verification) -> str:
    head = "".join(f'<th class="number">{name.replace("_", " ")}</th>' for name in _COLUMNS)
    rows = []
    # Those in which something was found first, where there are too many for a page.
    ordered = result.files if len(result.files) <= _ROWS else sorted(result.files, key=lambda file: not find(file))
    for file in ordered[:_ROWS]:
        if file.error is not None:
            rows.append(
                f'<tr><td>{html.escape(file.name)}</td><td class="bad" colspan="7">could not be compared</td></tr>'
            )
            continue
        values = measure([file])
        cells = "".join(
            f'<td class="number{_tone(name, values[name], result)}">{html.escape(shown(name, values[name]))}</td>'
            for name in _COLUMNS
        )
        rows.append(f'<tr><td>{html.escape(file.name)}</td><td class="number">{len(file.frames):,}</td>{cells}</tr>')
    lonely = [(name, ' class="bad"', "has no result") for name in result.missing]
    lonely += [(name, "", "has no original") for name in result.extra]
    rows += [
        f'<tr><td>{html.escape(name)}</td><td{tone} colspan="7">{text}</td></tr>' for name, tone, text in lonely[:_ROWS]
    ]
    return (
        f'<section class="card"><h2>Files</h2><div class="scroll"><table><thead><tr><th>file</th><th class="number">'
        f"frames</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _tone(name: str, value: float, result: Verification) -> str:
    limit = result.settings.limits.get(name)
    return " bad" if limit is not None and value > limit else ""


def _about(result: Verification, *, show: bool) -> str:
    look = result.settings.look
    entries = {
        "Detectors": ", ".join(result.detectors),
        "Engines of the run": ", ".join(result.of_the_run)
        or "not known, nor whether they are others: no report of the run was given",
        "Looked for": ", ".join(f"{kind.label}s" for kind in result.kinds),
        "Score from": f"{look.threshold:g}",
        "Looked at": f"{look.detect_size} pixels at most"
        + (f", and {look.tiles} x {look.tiles} parts" if look.tiles > 1 else ""),
        "Frames": "all" if result.settings.every == 1 else f"one of {result.settings.every}",
        "Thumbnails": "as they are: this page holds raw people" if show else "blurred",
    }
    entries |= {f"Network of --{option}": name for option, name in result.networks.items()}
    entries |= _identity(result)
    steps = [found for file in result.files if (found := flicker(file)).pairs]
    if steps:
        worst = max(found.worst for found in steps)
        original = sum(found.original * found.pairs for found in steps) / sum(found.pairs for found in steps)
        entries["Colour steps"] = f"at most {worst:.1%} of the range; mean of the original {original:.1%}"
    if known := [file.perceptual for file in result.files if file.perceptual is not None]:
        output, original = weighted(known, lambda entry: entry.output), weighted(known, lambda entry: entry.original)
        entries["Perceptual steps"] = (
            f"mean of stand-ins {output:.3g}, of the original {original:.3g}; "
            f"they differ by at most {max(entry.worst for entry in known):.3g}"
        )
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in entries.items())
    return (
        f'<section class="card about"><h2>How it was looked</h2><dl>{rows}</dl>'
        "<p>Raw is what shows the original's texture, as far as compression leaves it on the background of the same "
        "frame. It is counted in the core of every face and person, since detectors differ in where one ends; "
        "what has no texture cannot be judged. Nobody whom no detector finds is counted. A stand-in that a detector "
        "finds is no fault. Other engines may take for a face what is none, and miss one that is: zero here is no "
        "proof.</p></section>"
    )


def _identity(result: Verification) -> dict[str, str]:
    found = {}
    for file in result.files:
        entry = file.identity
        if entry is None:
            continue
        text = f"{entry.pictures} pictures of {entry.tracks} tracks; cosine to their stand-ins {entry.similarity:.2f}"
        if entry.others is not None and entry.rank1 is not None and entry.mean_ap is not None:
            text += f", between different people {entry.others:.2f}; rank-1 {entry.rank1:.0%}, mAP {entry.mean_ap:.0%}"
        if entry.chance is not None and entry.rank1_original is not None:
            text += f" (by chance {entry.chance:.0%}, with originals {entry.rank1_original:.0%})"
        found[f"Identity, {file.name}" if len(result.files) > 1 else "Identity"] = text
    return dict(list(found.items())[:_FILES])
