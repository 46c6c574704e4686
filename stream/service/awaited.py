"""What a stream needs and may come by itself, such as the folders of a disk that is mounted later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stream.address import Address, Place
from stream.config import RunSettings


def awaited(source: Address, outputs: Sequence[Address], settings: RunSettings) -> Path | None:
    """What is not there and need not be wrong for that: a file or folder, None where nothing is missing.

    Args:
        source: of a stream.
        outputs: of the stream.
        settings: of its run; paths in them are absolute.
    """
    return next((path for path in _needed(source, outputs, settings) if not path.exists()), None)


def _needed(source: Address, outputs: Sequence[Address], settings: RunSettings) -> Iterator[Path]:
    if source.place is Place.FILE:
        yield source.path
    written = [output.path for output in outputs if output.place is Place.FILE]
    for path in (*written, settings.report, settings.contact_sheet, settings.detections):
        if path is not None:
            yield path.parent
    read = (settings.regions, settings.ignore_zones, settings.only_zones, settings.certificate, settings.private_key)
    yield from (path for path in (*read, *settings.engine.values()) if path is not None)
    # Others are names.
    yield from (Path(text) for text in settings.detector if "/" in text)
