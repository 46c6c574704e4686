"""The stages that draw: the body, scenes of people, a clip. They need no torch.

Each stage is a plain function that goes on where it was stopped if it is told to `resume`, and refuses to add to
what is there otherwise.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

from engines.errors import UsageError
from export.starter.body import load_body, save_body
from export.starter.clips import walking_clip, write_clip
from export.starter.production import make_scenes
from export.starter.samples import IN_FILE, count_scenes, read_scenes, write_scenes
from export.starter.scenes import SceneSettings, contact_sheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from export.starter.samples import Scene

T = TypeVar("T")
log = logging.getLogger(__name__)

#: Made by `make_body_file` with anny 0.6.2; a body that is made by another release may have other vertices.
BODY = Path(__file__).with_name("body.npz")
SHEET_NAME = "sheet.png"
_ON_SHEET = 12
#: Frames a second of clips.
_RATE = 25


def until(items: Iterable[T], minutes: float | None) -> Iterator[T]:
    """The first of ``items``, and as many more as come within so many minutes; all of them with None."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    for item in items:
        yield item
        if end is not None and time.monotonic() >= end:
            return


def get_body(path: Path | None) -> Path:
    """The file of the body: ``path``, or the one that comes with the project, whose vertices its engines know.

    Raises:
        UsageError: ``path`` is given, and there is nothing.
    """
    if path is not None and not path.exists():
        raise UsageError(f"{path} does not exist; make it with the command body, or leave --body out")
    return path or BODY


def make_body_file(path: Path, *, resume: bool = False) -> None:
    """Makes the body from anny, which takes a few minutes.

    Args:
        path: of the file.
        resume: leave a file that is there.

    Raises:
        UsageError: it is there already.
        ExportError: anny is not installed.
    """
    if path.exists():
        if not resume:
            raise UsageError(f"{path} exists already; remove it to make it anew, or resume")
        log.info("the body is there: %s", path)
        return
    # anny_body needs torch, which is not worth its start where the body is there.
    from export.starter.anny_body import make_body

    log.info("making the body, once, which takes a few minutes: %s", path)
    save_body(path, make_body())


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How scenes are drawn.

    Attributes:
        body: the body's file.
        seed: of all scenes.
        workers: processes.
        settings: what scenes.
    """

    body: Path
    seed: int = 0
    workers: int = 1
    settings: SceneSettings = field(default_factory=SceneSettings)


def draw_scenes(
    folder: Path, drawing: Drawing, *, count: int | None, minutes: float | None = None, resume: bool = False
) -> int:
    """Draws scenes into a folder until there are enough or the time is over, and a contact sheet of the first.

    Args:
        folder: made if missing.
        drawing: how.
        count: of scenes in all; None for as many as there is time for.
        minutes: after which no further scene is taken; None for as long as it takes.
        resume: go on after the scenes that are there.

    Returns:
        How many scenes are there now.

    Raises:
        UsageError: there is no end, or there are scenes already.
        SourceError: the body or a file of scenes cannot be read.
        ExportError: there is no OpenGL here.
    """
    if count is None and minutes is None:
        raise UsageError("drawing has no end; give a count or minutes")
    done = count_scenes(folder)
    if done and not resume:
        raise UsageError(f"{folder} holds {done} scenes already; resume, or give another folder")
    start, before = time.monotonic(), done
    if count is None or done < count:
        wanted = None if count is None else count - done
        made = make_scenes(drawing.body, drawing.settings, drawing.seed, wanted, first=done, workers=drawing.workers)
        with contextlib.closing(made):
            scenes = until(made, minutes)
            # File by file, so that what is counted is what was written.
            while batch := list(itertools.islice(scenes, IN_FILE)):
                write_scenes(folder, batch, in_file=IN_FILE)
                done += len(batch)
                rate = (done - before) / (time.monotonic() - start)
                log.info("%d scenes, %.2f a second", done, rate)
    _write_sheet(folder, drawing.body)
    log.info("wrote %d scenes to %s", done, folder)
    return done


def _write_sheet(folder: Path, body: Path) -> None:
    if not count_scenes(folder):
        return
    shown = list(itertools.islice(read_scenes(folder), _ON_SHEET))
    sheet = contact_sheet(shown, load_body(body), columns=min(4, len(shown)))
    cv2.imwrite(str(folder / SHEET_NAME), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def draw_clip(
    output: Path, body: Path, *, seconds: float, people: int, seed: int, size: tuple[int, int], resume: bool = False
) -> None:
    """Draws a clip of people who walk.

    Args:
        output: the file.
        body: the body's file.
        seconds: length.
        people: how many.
        seed: of everything.
        size: width and height in pixels.
        resume: leave a clip that is there.

    Raises:
        UsageError: the clip is there already.
        SourceError: the body cannot be read.
        ExportError: there is no OpenGL here.
    """
    if output.exists():
        if not resume:
            raise UsageError(f"{output} exists already; give another name, or remove it")
        return
    frames = round(seconds * _RATE)
    scenes = walking_clip(load_body(body), seed, frames, people=people, size=size, rate=float(_RATE))
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"partial-{output.name}")
    try:
        write_clip(partial, _told(scenes, frames), size=size, rate=_RATE)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    log.info("wrote %s", output)


def _told(scenes: Iterable[Scene], frames: int) -> Iterator[np.ndarray]:
    for number, scene in enumerate(scenes, start=1):
        yield scene.image
        if number % 100 == 0:
            log.info("%d of %d frames", number, frames)
