"""`standin export`: from a published checkpoint to a bundle."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from engines.errors import RuntimeUnavailableError


def export_command(
    name: Annotated[str, typer.Argument(help="dp2-person-cse, dp2-person, dp2-face or sg-gan.")],
    checkpoint: Annotated[Path, typer.Option(readable=False, help="The authors' file, or your own training.")],
    output: Annotated[Path, typer.Option(readable=False, help="A new folder for the bundle.")],
    precision: Annotated[Literal["fp32", "fp16", "both"], typer.Option(help="Which generators.")] = "both",
    opset: Annotated[int, typer.Option(help="Of the ONNX operators.")] = 18,
    config: Annotated[
        str | None, typer.Option(help="What no tensor shows, by name; for files whose hash is not known.")
    ] = None,
    surface: Annotated[
        Path | None, typer.Option(readable=False, help="The CSE checkpoint with the vertex map of the training.")
    ] = None,
) -> None:
    """Make a bundle of a generator's checkpoint, and verify that it computes the same."""
    try:
        from export.generators import export_generator
    except ImportError as error:
        raise RuntimeUnavailableError(
            f'exporting needs PyTorch and onnxscript ({error}); pip install "standin[export]"'
        ) from None
    # Paths may hold anything, even what looks like the name of an emoji.
    progress = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    with _terminable():
        bundle = export_generator(
            name,
            checkpoint,
            output,
            precision=precision,
            opset=opset,
            config=config,
            surface=surface,
            progress=lambda text: progress.print(text, markup=False),
        )
    for result in bundle.manifest.parity:
        progress.print(
            f"{result.graph} {result.output}: {result.measure} {result.measured:.3g}, at most {result.tolerance:.3g}; "
            f"largest difference {result.largest_difference:.3g}",
            markup=False,
        )
    Console(soft_wrap=True, highlight=False, emoji=False).print(str(bundle.path), markup=False)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end an export as Ctrl-C does, which removes the folder it works in."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
