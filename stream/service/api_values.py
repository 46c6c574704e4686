"""What a stream may be told over the API: less than in the config file, for the token's holder may not own the machine.

Fields are on a list or are refused. What is not on it names files to be executed or overwritten, or leaves something
raw. How strict the values of those on it must be is settled where the settings in force are known, in
`stream.service.strictness`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from engines.errors import UsageError
from stream.address import Place, input_address, output_address, redacted

#: A stream's name goes into addresses, metrics and file names.
NAME_PATTERN: Final = r"^[a-z0-9_-]{1,64}$"
#: Values that name no file.
_PLAIN: Final = frozenset({
    "backend", "blur_radius", "cells", "codec", "connect_timeout", "crf", "deadline", "detect_size",
    "detector_precision", "device", "fallback", "hold", "join_faces", "latency_budget", "lookahead", "margin",
    "mask_colour", "mask_frames", "mask_margin", "on_failure", "precision", "preset", "read_timeout",
    "reconnect_attempts", "remember", "report_rotate", "retain", "rtsp_transport", "seed", "segment", "shape",
    "show_regions", "sink_timeout", "speed", "spool", "threads", "threshold", "tiles", "truncation", "video_stream",
    "when_lost", "when_slow",
})  # fmt: skip
#: How regions are covered; not whether.
_TREATMENTS: Final = frozenset({"face", "person", "plate"})
_PATHS: Final = frozenset({"contact_sheet", "regions", "report"})
_SOURCES: Final = frozenset({"input"})
_SINKS: Final = frozenset({"output"})


def check_values(values: Mapping[str, Any], allowed: Sequence[Path]) -> dict[str, Any]:
    """A stream's values as they go on: checked, by field name, files as resolved paths.

    What the values themselves may be is left to the settings.

    Args:
        values: as they came over the API; `-` counts as `_` in names.
        allowed: files, cameras and folders that may be named.

    Raises:
        UsageError: a field that may not be set over the API, or a file or address that may not be named.
    """
    return {name: _checked(name, value, allowed) for key, value in values.items() for name in [key.replace("-", "_")]}


def allowed_paths(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The allow-list as it is compared: absolute, symbolic links followed.

    Raises:
        UsageError: the root folder is among them, so that nothing would be refused.
    """
    resolved = tuple(path.expanduser().resolve() for path in paths)
    if any(path == Path(path.anchor) for path in resolved):
        raise UsageError(
            "the API's allow-list holds the root folder; name the folders and cameras that streams may use"
        )
    return resolved


def _checked(name: str, value: Any, allowed: Sequence[Path]) -> Any:
    if name in _PLAIN:
        return value
    if name in _TREATMENTS:
        if value == "keep":
            raise UsageError(f"{name}: nothing is left raw over the API; `keep` is for the config file")
        return value
    if name == "detector":
        return [_detector(text) for text in _texts(name, value)]
    if name in _PATHS:
        return str(_path(name, _text(name, value), allowed))
    if name in _SOURCES | _SINKS:
        checked = [_address(name, text, allowed) for text in _texts(name, value)]
        return checked if isinstance(value, list) else checked[0]
    raise UsageError(f"{name!r} cannot be set over the API; put the stream into the config file")


def _detector(text: str) -> str:
    """A bundle is executed, so only those that are installed count, by name."""
    if "/" in text or text.startswith("."):
        raise UsageError(f"detector: {text!r} is a folder; over the API it must be the name of an installed bundle")
    return text


def _address(name: str, text: str, allowed: Sequence[Path]) -> str:
    if text == "-" or text.lower().startswith("gst:"):
        raise UsageError(f"{name}: {'standard input and output are' if text == '-' else 'gst: is'} not for the API")
    address = input_address(text) if name in _SOURCES else output_address(text)
    if address.place is Place.NETWORK:
        return text
    if address.place not in (Place.FILE, Place.DEVICE):
        raise UsageError(f"{name}: {redacted(text)} is not for the API; put the stream into the config file")
    # A slash at the end says that it is a folder, for segments.
    folder = "/" * address.text.endswith("/")
    return f"{_path(name, f'{address.path}{folder}', allowed)}{folder}"


def _path(name: str, text: str, allowed: Sequence[Path]) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise UsageError(f"{name}: {redacted(text)} is no URL, and over the API a path must be absolute")
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{name}: {text} cannot be resolved") from error
    if any(resolved == root or resolved.is_relative_to(root) for root in allowed):
        return resolved
    raise UsageError(f"{name}: {text} lies outside what the API may use (its allow-list)")


def _texts(name: str, value: Any) -> list[str]:
    return [_text(name, part) for part in value] if isinstance(value, list) else [_text(name, value)]


def _text(name: str, value: Any) -> str:
    """A text that is nothing but a name: no control characters, no white space that libraries would split at."""
    if not isinstance(value, str) or not value:
        raise UsageError(f"{name}: expected a text, got {type(value).__name__ if value != '' else 'nothing'}")
    if not value.isprintable() or value != value.strip():
        raise UsageError(f"{name}: control characters, or white space at its ends")
    return value
