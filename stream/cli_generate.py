"""`standin generate`: what a generator makes of one region of a photo, for several latents and truncations."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engines.bundle import Bundle
from engines.errors import GenerationError, SinkError, SourceError, UsageError
from engines.runtime import Device
from engines.store import Store, home
from stream.frame import Image
from stream.generators.base import Crops, Generator
from stream.generators.open import Precision, open_generator
from stream.latents import Latents
from stream.regions import Kind
from stream.samples import Ints, Region, cut_out, filled, masked, render_sheet
from stream.sinks.target import Target, check_target
from stream.sources.images import ImageSource

_MOST_SAMPLES = 64
_MOST_ROWS = 16
_WHITE = 128


def generate_command(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or an installed bundle's name.")],
    image: Annotated[Path, typer.Option(help="A photo.", readable=False)],
    mask: Annotated[
        Path, typer.Option(help="An image of the same size: white (128 and above) is replaced.", readable=False)
    ],
    output: Annotated[Path, typer.Option(help="The sheet, as PNG.")],
    vertices: Annotated[
        Path | None,
        typer.Option(help="For bundles with a surface: .npy of the photo's size, vertex of each pixel, -1 for none."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Stand-ins in a row.", min=1, max=_MOST_SAMPLES)] = 8,
    truncation: Annotated[str, typer.Option(help="A row for each of these, 0 to 1.")] = "0,0.35,0.7,1",
    multi_modal: Annotated[
        bool | None,
        typer.Option(
            "--multi-modal/--plain", help="Truncate towards cluster centres. (default: where the bundle has them)"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="For the same stand-ins again. (default: another one)")] = None,
    precision: Annotated[Precision, typer.Option(help="Which of the bundle's graphs runs.")] = "fp32",
    device: Annotated[Device, typer.Option(help="Where it runs.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="For the engine. (default: one per core)")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Show what a generator makes of one region of a photo: a sheet of stand-ins, a row for each truncation."""
    rows = _parse_truncations(truncation)
    if output.suffix.lower() != ".png":
        raise UsageError(f"--output writes PNG, so its name must end in .png, got {output.name!r}")
    inputs = tuple(path for path in (image, mask, vertices) if path is not None)
    check_target(output, overwrite=overwrite, inputs=inputs)
    opened = Store(home()).find(bundle)
    seed = secrets.randbits(32) if seed is None else seed
    # Room for one track: they are generated one after the other.
    with _progress() as progress:
        generator = open_generator(
            opened,
            device=device,
            precision=precision,
            threads=threads,
            latents=_latents(opened, seed),
            truncation=rows[0],
            multi_modal=multi_modal,
            budget=0,
        )
        try:
            crop = _crop(opened, generator, image, mask, vertices)
            pictures = _generate(generator, crop, rows, samples, progress)
        finally:
            generator.close()
    title = f"{opened.manifest.name}  {precision}  seed {seed}"
    captions = [f"truncation {value:g}" for value in rows]
    sheet = render_sheet(title, masked(crop), list(zip(captions, pictures, strict=True)))
    _write_png(output, sheet, overwrite=overwrite)
    typer.echo(f"{output}: {samples} samples, {len(rows)} truncations, seed {seed}")


def _parse_truncations(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 <= value <= 1 for value in values) or len(values) > _MOST_ROWS:
        raise UsageError(
            f"--truncation takes up to {_MOST_ROWS} numbers from 0 to 1, separated by commas, got {text!r}"
        )
    return values


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _latents(bundle: Bundle, seed: int) -> Latents:
    generation = bundle.manifest.generation
    return Latents(seed) if generation is None else Latents(seed, generation.z_channels)


def _crop(bundle: Bundle, generator: Generator, image: Path, mask: Path, vertices: Path | None) -> Crops:
    """The photo's region as the generator takes it.

    Raises:
        UsageError: the files do not fit each other or the bundle.
        SourceError: one cannot be read.
    """
    photo = _read_image(image)
    unknown = _read_mask(mask, photo.shape[:2])
    given = None
    if vertices is None and generator.needs_surface:
        raise UsageError(
            f"bundle {bundle.manifest.name!r} needs the vertex of each pixel; give --vertices FILE "
            "(.npy, integers, of the photo's size, -1 outside the body)"
        )
    if vertices is not None:
        if not generator.needs_surface:
            raise UsageError(f"bundle {bundle.manifest.name!r} knows no surface; leave --vertices away")
        given = _read_vertices(vertices, photo.shape[:2], len(bundle.array("vertex_embeddings")))
    kind = Kind.of(bundle.manifest.kinds[0])
    try:
        return cut_out(Region(photo, unknown, given), generator.size, kind)
    except ValueError as error:
        raise UsageError(f"{mask}: {error}") from error


def _read_image(path: Path) -> Image:
    """A photo, upright, uint8 RGB."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; an image is expected")
    if not path.exists():
        raise UsageError(f"no such file: {path}")
    frames = list(ImageSource(path))
    if not frames:
        raise SourceError(f"{path} cannot be read as an image")
    return frames[0].image


def _read_mask(path: Path, size: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which pixels are to be replaced, bool (height, width): those that are white rather than black."""
    picture = _read_image(path)
    if picture.shape[:2] != size:
        raise UsageError(f"{path} is {_text(picture.shape)}, the photo {_text(size)} (width x height); they must agree")
    unknown = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) >= _WHITE
    if not unknown.any():
        raise UsageError(f"{path} marks nothing: what is to be replaced must be white")
    if unknown.all():
        raise UsageError(f"{path} marks the whole photo: what stays must be black")
    return np.asarray(unknown, np.bool_)


def _read_vertices(path: Path, size: tuple[int, ...], count: int) -> Ints:
    try:
        with path.open("rb") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path} cannot be read as a .npy file: {error}") from error
    if values.dtype.kind not in "iu":
        raise UsageError(f"{path} holds {values.dtype}; expected integers: the vertex of each pixel")
    if values.shape != size:
        raise UsageError(f"{path} is {values.shape}, the photo {size} (height, width); they must agree")
    if values.min() < -1 or values.max() >= count:
        raise UsageError(
            f"{path} has vertices from {values.min()} to {values.max()}; this surface has 0 to {count - 1}, "
            "and -1 stands for none"
        )
    return np.asarray(values, np.int64)


def _generate(
    generator: Generator, crop: Crops, rows: list[float], samples: int, progress: Progress
) -> list[list[Image]]:
    """A picture for each truncation and latent.

    Raises:
        GenerationError: one cannot be generated.
    """
    pictures = []
    task = progress.add_task("generating", total=len(rows) * samples)
    for value in rows:
        generator.set_truncation(value)
        row = []
        for track in range(samples):
            row.append(_sample(generator, crop, track))
            progress.advance(task)
        pictures.append(row)
    return pictures


def _sample(generator: Generator, crop: Crops, track: int) -> Image:
    generator.request([track])
    generator.wait([track])
    result = generator.generate(replace(crop, track_ids=np.array([track], np.int64)))
    if not result.done[0]:
        raise GenerationError(
            f"sample {track + 1} cannot be generated: {generator.failure(track) or 'no reason known'}"
        )
    picture = filled(crop, result.images[0])
    # It makes room for the next one; the seed brings it back for the next truncation.
    generator.forget(track)
    return picture


def _write_png(path: Path, picture: Image, *, overwrite: bool) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    target = Target(path, overwrite=overwrite)
    try:
        target.temporary.write_bytes(data.tobytes())
    except OSError as error:
        target.discard()
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error
    target.commit()


def _text(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
