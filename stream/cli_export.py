"""`standin export`: from a published checkpoint to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.console import Console

from engines.bundle import Bundle
from engines.errors import RuntimeUnavailableError, UsageError
from engines.store import Store, home
from stream.cli_plans import Wish, build_plans, require_tensorrt, terminable

#: Of `standin export NAME`: what is exported by `export.detectors`; generators are named by `export.configs`.
_DETECTORS = ("maskrcnn", "cse")
_DSFD = "dsfd"

_Make = Callable[[Path, Callable[[str], None]], Bundle]


def export_command(
    name: Annotated[
        str,
        typer.Argument(help="dp2-person-cse, dp2-person, dp2-face, sg-gan, maskrcnn, cse or dsfd; the bundle's name."),
    ],
    checkpoint: Annotated[Path, typer.Option(readable=False, help="The authors' file, or your own training.")],
    output: Annotated[
        Path | None, typer.Option(readable=False, help="A new folder for the bundle. (default: it is installed)")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "both"] | None, typer.Option(help="Which generators. (default: both)")
    ] = None,
    opset: Annotated[int, typer.Option(help="Of the ONNX operators.")] = 18,
    config: Annotated[
        str | None,
        typer.Option(
            help="What no tensor shows, by name, or a YAML file of detectron2; for files whose hash is not known."
        ),
    ] = None,
    surface: Annotated[
        Path | None,
        typer.Option(readable=False, help="Generators: the CSE checkpoint with the vertex map of the training."),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(help="Detectors: HxW of the pictures, which TensorRT likes to know. (default: any)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an installed bundle of that name.")] = False,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Build TensorRT plans for this machine too (standin engines build).")
    ] = False,
) -> None:
    """Make a bundle of a checkpoint, and verify that it computes the same."""
    # An export takes minutes: what cannot be done after it is said before.
    builder = require_tensorrt() if tensorrt else None
    given = {"precision": precision, "config": config, "surface": surface, "input_size": _size(input_size)}
    try:
        make = _choose(name, checkpoint, opset, {key: value for key, value in given.items() if value is not None})
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'exporting needs PyTorch and onnxscript ({error}); pip install "standin[export]"'
        ) from None
    # Paths may hold anything, even what looks like the name of an emoji.
    progress = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

    def say(text: str) -> None:
        progress.print(text, markup=False)

    with terminable():
        if output is None:
            bundle = Store(home()).install(name, lambda folder: make(folder, say), force=force)
        elif force:
            raise UsageError("--force replaces installed bundles only; leave it out, or leave out --output")
        else:
            bundle = make(output, say)
    for result in bundle.manifest.parity:
        progress.print(
            f"{result.graph} {result.output}: {result.measure} {result.measured:.3g}, at most {result.tolerance:.3g}; "
            f"largest difference {result.largest_difference:.3g}",
            markup=False,
        )
    Console(soft_wrap=True, highlight=False, emoji=False).print(str(bundle.path), markup=False)
    if builder is not None:
        build_plans(bundle, Wish(), builder)


def _choose(name: str, checkpoint: Path, opset: int, given: dict[str, Any]) -> _Make:
    """What makes the bundle in a folder, with the options that were given.

    Raises:
        UsageError: an option that does not go with the name.
        ImportError: what exporting needs is not installed.
    """
    if name in _DETECTORS:
        from export.detectors import export_detector

        _refuse(name, given, "precision", "surface")
        return lambda folder, say: export_detector(
            cast("Any", name), checkpoint, folder, opset=opset, progress=say, **given
        )
    if name == _DSFD:
        from export.dsfd import export_dsfd

        _refuse(name, given, "precision", "surface", "config")
        return lambda folder, say: export_dsfd(checkpoint, folder, opset=opset, progress=say, **given)
    from export.configs import configs
    from export.generators import export_generator

    generators = dict.fromkeys(config.export for config in configs().values())
    if name not in generators:
        known = ", ".join((*generators, *_DETECTORS, _DSFD))
        raise UsageError(f"nothing named {name!r} can be exported; known are: {known}")
    _refuse(name, given, "input_size")
    return lambda folder, say: export_generator(name, checkpoint, folder, opset=opset, progress=say, **given)


def _refuse(name: str, given: dict[str, Any], *options: str) -> None:
    for option in options:
        if option in given:
            raise UsageError(f"--{option.replace('_', '-')} does not go with {name}; leave it out")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"--input-size {text!r} is no size; expected HxW, such as 800x1344")
    return int(height), int(width)
