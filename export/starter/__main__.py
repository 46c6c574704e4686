"""``python -m export.starter``: makes parts of the starter set from the command line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from engines.errors import StandinError
from engines.store import home
from export.starter.backgrounds import read_photographs
from export.starter.body import load_body, save_body
from export.starter.cameras import VIEWS
from export.starter.clips import walking_clip, write_clip
from export.starter.production import make_scenes
from export.starter.samples import Scene, write_scenes
from export.starter.scenes import SceneSettings, contact_sheet

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_ON_SHEET = 12
_RATE = 25


def get_body(path: Path | None) -> Path:
    """The file of the body: ``path``, or one in the store, which is made where there is none yet.

    Raises:
        ExportError: it has to be made, and anny is not installed.
    """
    path = path or home() / "starter" / "body.npz"
    if not path.exists():
        # anny_body needs torch, which is not worth its start where the body is there.
        from export.starter.anny_body import make_body

        log.info("making the body, once, which takes a few minutes: %s", path)
        save_body(path, make_body())
    return path


def write(arguments: argparse.Namespace) -> None:
    """Writes scenes and a contact sheet of the first of them."""
    width, height = arguments.size
    photographs = read_photographs(arguments.photographs) if arguments.photographs else []
    settings = SceneSettings(
        width=width,
        height=height,
        views=tuple(arguments.views),
        degraded=not arguments.clean,
        photographs=photographs,
    )
    body = get_body(arguments.body)
    shown: list[Scene] = []

    def watched() -> Iterator[Scene]:
        for scene in make_scenes(body, settings, arguments.seed, arguments.count, workers=arguments.workers):
            if len(shown) < _ON_SHEET:
                shown.append(scene)
            yield scene

    start = time.monotonic()
    write_scenes(arguments.output, watched())
    seconds = time.monotonic() - start
    log.info("%d scenes in %.1f s, %.1f a second", arguments.count, seconds, arguments.count / seconds)
    if shown:
        sheet = contact_sheet(shown, load_body(body), columns=min(4, len(shown)))
        cv2.imwrite(str(arguments.output / "sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def write_walkers(arguments: argparse.Namespace) -> None:
    """Writes a clip of people who walk."""
    body = load_body(get_body(arguments.body))
    frames = round(arguments.seconds * _RATE)
    scenes = walking_clip(body, arguments.seed, frames, people=arguments.people, size=arguments.size, rate=float(_RATE))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_clip(arguments.output, (scene.image for scene in scenes), size=arguments.size, rate=_RATE)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give it as 512x288")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.starter", description=__doc__)
    commands = parser.add_subparsers(required=True)
    scenes = commands.add_parser("scenes", help="draw synthetic scenes of people, and of none")
    scenes.add_argument("--count", type=int, default=64)
    scenes.add_argument("--seed", type=int, default=0)
    scenes.add_argument("--output", type=Path, required=True, metavar="DIR")
    scenes.add_argument("--size", type=_size, default=(512, 288), metavar="WxH")
    scenes.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: in the store)")
    scenes.add_argument("--photographs", type=Path, metavar="DIR", help="person-free pictures for backgrounds")
    scenes.add_argument("--views", nargs="+", choices=VIEWS, default=(), help="kinds of cameras (default: a mix)")
    scenes.add_argument("--clean", action="store_true", help="without a camera's blur, noise and compression")
    scenes.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, one a core")
    scenes.set_defaults(run=write)
    clip = commands.add_parser("clip", help="draw a clip of people who walk")
    clip.add_argument("--seconds", type=float, default=6.0)
    clip.add_argument("--people", type=int, default=2)
    clip.add_argument("--seed", type=int, default=0)
    clip.add_argument("--output", type=Path, required=True, metavar="FILE")
    clip.add_argument("--size", type=_size, default=(640, 360), metavar="WxH")
    clip.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: in the store)")
    clip.set_defaults(run=write_walkers)
    return parser


def main(words: list[str] | None = None) -> int:
    """Runs one command and gives the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _parser().parse_args(words)
    try:
        arguments.run(arguments)
    except StandinError as error:
        log.error("%s", error)  # noqa: TRY400 (one line is what a user can act on)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
