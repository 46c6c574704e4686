"""``python -m export.starter``: makes the starter set, whole or stage by stage.

Without the name of a stage, the whole set is made from nothing within --minutes: the body, scenes, the detector, crops,
the generator, their bundles and figures. Add --resume to go on with what was stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import StandinError, UsageError
from export.starter import stages
from export.starter.backgrounds import read_photographs
from export.starter.cameras import VIEWS
from export.starter.scenes import SceneSettings

# Nothing here imports torch before a stage needs it: processes that draw read this module again, many times.
if TYPE_CHECKING:
    from export.starter.stages_detector import Run

log = logging.getLogger(__name__)

_WHOLE = "whole"
_INTERRUPTED = 130
#: Scenes where nothing else is said.
_COUNT = 64


def _body(arguments: argparse.Namespace) -> None:
    stages.make_body_file(arguments.output, resume=arguments.resume)


def _scenes(arguments: argparse.Namespace) -> None:
    width, height = arguments.size
    settings = SceneSettings(
        width=width,
        height=height,
        views=tuple(arguments.views),
        degraded=not arguments.clean,
        photographs=read_photographs(arguments.photographs) if arguments.photographs else [],
    )
    drawing = stages.Drawing(
        body=stages.get_body(arguments.body), seed=arguments.seed, workers=arguments.workers, settings=settings
    )
    count = _COUNT if arguments.count is None and arguments.minutes is None else arguments.count
    stages.draw_scenes(arguments.output, drawing, count=count, minutes=arguments.minutes, resume=arguments.resume)


def _clip(arguments: argparse.Namespace) -> None:
    stages.draw_clip(
        arguments.output,
        stages.get_body(arguments.body),
        seconds=arguments.seconds,
        people=arguments.people,
        seed=arguments.seed,
        size=arguments.size,
        resume=arguments.resume,
    )


def _run(arguments: argparse.Namespace) -> Run:
    from export.starter.stages_detector import Run
    from export.starter.training import Budget

    return Run(
        budget=Budget(steps=arguments.steps, minutes=arguments.minutes),
        seed=arguments.seed,
        device=arguments.device,
        resume=arguments.resume,
        settings=arguments.set,
    )


def _detector(arguments: argparse.Namespace) -> None:
    from export.starter.stages_detector import train_a_detector

    body = stages.get_body(arguments.body)
    train_a_detector(arguments.scenes, body, arguments.output, _run(arguments), weights=arguments.weights)


def _detector_bundle(arguments: argparse.Namespace) -> None:
    from export.starter.detector_export import BundleOptions
    from export.starter.settings import with_settings
    from export.starter.stages_detector import make_detector_bundle

    options = with_settings(BundleOptions(), arguments.set)
    make_detector_bundle(
        arguments.checkpoint, arguments.output, options, scenes=arguments.scenes, resume=arguments.resume
    )


def _crops(arguments: argparse.Namespace) -> None:
    from export.starter.stages_generator import cut_crops

    size = (arguments.size[1], arguments.size[0]) if arguments.size else None
    cut_crops(
        arguments.scenes,
        arguments.output,
        size=size,
        large=arguments.large,
        cuts=arguments.cuts,
        seed=arguments.seed,
        resume=arguments.resume,
    )


def _generator(arguments: argparse.Namespace) -> None:
    from export.starter.stages_generator import train_a_generator

    body = stages.get_body(arguments.body)
    train_a_generator(
        arguments.crops,
        body,
        arguments.detector,
        arguments.output,
        _run(arguments),
        large=arguments.large,
        weights=arguments.weights,
    )


def _generator_bundle(arguments: argparse.Namespace) -> None:
    from export.starter.stages_generator import bundle_name, make_generator_bundle

    make_generator_bundle(
        arguments.checkpoint,
        arguments.detector,
        arguments.output,
        name=arguments.name or bundle_name(large=arguments.large),
        precision=arguments.precision,
        resume=arguments.resume,
    )


def _narrow(arguments: argparse.Namespace) -> None:
    from export.starter.stages_generator import narrow_a_generator

    body = stages.get_body(arguments.body)
    narrow_a_generator(arguments.bundle, arguments.crops, body, arguments.output, _run(arguments), name=arguments.name)


def _sharpen(arguments: argparse.Namespace) -> None:
    from export.starter.stages_generator import sharpen_a_generator

    body = stages.get_body(arguments.body)
    sharpen_a_generator(arguments.bundle, arguments.crops, body, arguments.output, _run(arguments), name=arguments.name)


def _evaluate(arguments: argparse.Namespace) -> None:
    from export.starter.stages_detector import evaluate_detector
    from export.starter.stages_generator import evaluate_generator

    if not arguments.scenes and not arguments.generator:
        raise UsageError("there is nothing to evaluate; give --scenes for the detector, --generator for the generator")
    if bool(arguments.generator) != bool(arguments.crops):
        raise UsageError("a generator is evaluated on crops; give both --generator and --crops")
    figures = {}
    if arguments.scenes:
        body = stages.get_body(arguments.body)
        figures["detector"] = evaluate_detector(
            arguments.detector, arguments.scenes, body, threshold=arguments.threshold
        )
    if arguments.generator:
        figures["generator"] = evaluate_generator(arguments.generator, arguments.detector, arguments.crops)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        log.info("wrote %s", arguments.output)


def _whole(arguments: argparse.Namespace) -> None:
    from export.starter.whole import Plan, make_set

    make_set(
        Plan(
            output=arguments.output,
            minutes=arguments.minutes,
            device=arguments.device,
            seed=arguments.seed,
            body=arguments.body,
            photographs=arguments.photographs,
            workers=arguments.workers,
            large=arguments.large,
            size=arguments.size,
            settings=arguments.set,
            resume=arguments.resume,
            words=arguments.words,
        )
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 16 <= int(width) <= 4096 and 16 <= int(height) <= 4096):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give it as 512x288")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.starter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="STAGE")
    _add_whole(commands)
    _add_drawing(commands)
    _add_detector(commands)
    _add_generator(commands)
    return parser


def _add_whole(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    whole = commands.add_parser(_WHOLE, help="everything (also without a name)", parents=[_common(), _training()])
    whole.add_argument("--minutes", type=float, required=True, help="for all stages together")
    whole.add_argument("--size", type=_size, default=(512, 288), metavar="WxH", help="of scenes")
    _add_drawn(whole)
    whole.add_argument("--large", action="store_true", help="a generator of twice the resolution")
    whole.set_defaults(run=_whole)


def _add_drawing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    body = commands.add_parser("body", help="make another body's file from anny")
    body.add_argument("--output", type=Path, metavar="FILE", required=True)
    body.add_argument("--resume", action="store_true")
    body.set_defaults(run=_body)
    scenes = commands.add_parser("scenes", help="draw synthetic scenes of people, and of none", parents=[_common()])
    scenes.add_argument("--count", type=int, help=f"of scenes in all (default {_COUNT}, or what --minutes allow)")
    scenes.add_argument("--minutes", type=float, help="stop after so many")
    scenes.add_argument("--size", type=_size, default=(512, 288), metavar="WxH")
    scenes.add_argument("--views", nargs="+", choices=VIEWS, default=(), help="kinds of cameras (default: a mix)")
    scenes.add_argument("--clean", action="store_true", help="without a camera's blur, noise and compression")
    _add_drawn(scenes)
    scenes.set_defaults(run=_scenes)
    clip = commands.add_parser("clip", help="draw a clip of people who walk", parents=[_common("FILE")])
    clip.add_argument("--seconds", type=float, default=6.0)
    clip.add_argument("--people", type=int, default=2)
    clip.add_argument("--size", type=_size, default=(640, 360), metavar="WxH")
    clip.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: the project's)")
    clip.set_defaults(run=_clip)


def _add_drawn(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: the project's)")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="person-free pictures for backgrounds")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw, one a core")


def _add_detector(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    detector = commands.add_parser("detector", help="train the detector", parents=[_common(), _training()])
    detector.add_argument("--scenes", type=Path, required=True, metavar="DIR", help="scenes, or packed ones")
    detector.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: the project's)")
    detector.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="checkpoint of another training, or folder of a detector's bundle, to begin with",
    )
    _add_budget(detector)
    detector.set_defaults(run=_detector)
    bundle = commands.add_parser("detector-bundle", help="make the detector's bundle", parents=[_common()])
    bundle.add_argument("--checkpoint", type=Path, required=True, metavar="FILE")
    bundle.add_argument(
        "--scenes", type=Path, metavar="DIR", help="compare network and graphs on these, and add 8-bit integers"
    )
    bundle.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as threshold=0.2")
    bundle.set_defaults(run=_detector_bundle)
    evaluate = commands.add_parser("evaluate", help="measure networks on what they have not seen")
    evaluate.add_argument("--detector", type=Path, required=True, metavar="FILE", help="its checkpoint")
    evaluate.add_argument("--scenes", type=Path, metavar="DIR", help="scenes of another seed")
    evaluate.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: the project's)")
    evaluate.add_argument("--threshold", type=float, default=0.2, help="least score that counts")
    evaluate.add_argument("--generator", type=Path, metavar="FILE", help="averaged weights of its training")
    evaluate.add_argument("--crops", type=Path, metavar="DIR", help="crops of another seed")
    evaluate.add_argument("--output", type=Path, metavar="FILE", help="write the figures there as JSON")
    evaluate.set_defaults(run=_evaluate)


def _add_generator(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    crops = commands.add_parser("crops", help="cut people from scenes", parents=[_common()])
    crops.add_argument("--scenes", type=Path, nargs="+", required=True, metavar="DIR")
    crops.add_argument("--size", type=_size, metavar="WxH", help="default: what the generator takes")
    crops.add_argument("--large", action="store_true", help="for the generator of twice the resolution")
    crops.add_argument("--cuts", type=int, default=1, help="of each person")
    crops.set_defaults(run=_crops)
    generator = commands.add_parser("generator", help="train the generator", parents=[_common(), _training()])
    generator.add_argument("--crops", type=Path, required=True, metavar="DIR")
    generator.add_argument("--detector", type=Path, required=True, metavar="PATH", help="its checkpoint")
    generator.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: the project's)")
    generator.add_argument("--large", action="store_true", help="twice the resolution")
    generator.add_argument("--weights", type=Path, metavar="FILE", help="averaged weights of another to begin with")
    _add_budget(generator)
    generator.set_defaults(run=_generator)
    bundle = commands.add_parser("generator-bundle", help="make the generator's bundle", parents=[_common()])
    bundle.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its averaged weights")
    bundle.add_argument("--detector", type=Path, required=True, metavar="PATH", help="its checkpoint")
    bundle.add_argument("--name", help="of the bundle")
    bundle.add_argument("--large", action="store_true", help="name it so")
    bundle.add_argument("--precision", choices=("fp32", "fp16", "both"), default="fp32")
    bundle.set_defaults(run=_generator_bundle)
    for stage, run, what, of in (
        ("narrow", _narrow, "train a faster generator to give what a bundle's gives", "that it learns from"),
        ("sharpen", _sharpen, "train a bundle's generator on, before a discriminator", "that learns on"),
    ):
        learning = commands.add_parser(stage, help=what, parents=[_common(), _training()])
        learning.add_argument("--bundle", type=Path, required=True, metavar="DIR", help=f"of the generator {of}")
        learning.add_argument("--crops", type=Path, required=True, metavar="DIR")
        learning.add_argument("--body", type=Path, metavar="FILE", help="a body's file (default: the project's)")
        learning.add_argument("--name", required=True, help="of the new bundle, and of its folder in --output")
        _add_budget(learning)
        learning.set_defaults(run=run)


def _common(what: str = "DIR") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--output", type=Path, required=True, metavar=what)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on with what is there")
    return parser


def _training() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="of the training; such as losses.adversarial=0"
    )
    return parser


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="of training")
    parser.add_argument("--steps", type=int, help="of training")


def main(words: list[str] | None = None) -> int:
    """Runs one command and gives the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = sys.argv[1:] if words is None else words
    named = not given or not given[0].startswith("--") or given[0] == "--help"
    arguments = _parser().parse_args(given if named else [_WHOLE, *given])
    arguments.words = given
    try:
        arguments.run(arguments)
    except StandinError as error:
        log.error("%s", error)  # noqa: TRY400 (one line is what a user can act on)
        return error.exit_code
    except KeyboardInterrupt as interruption:
        log.warning("%s; add --resume to go on", interruption if str(interruption) else "stopped")
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
