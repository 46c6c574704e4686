"""Networks of the user's own that look at pictures: how they are named, and run on the CPU. ONNX files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from engines.bundle import sha256_file
from engines.errors import BundleError, UsageError
from engines.runtime_onnx import import_onnxruntime

Floats = npt.NDArray[np.float32]
#: Pictures of one size, uint8 or float32 RGB (N, height, width, 3), levels 0 to 255.
Pictures = npt.NDArray[np.uint8] | Floats
#: One number for all channels, or one for each.
Levels = float | tuple[float, float, float]

_DIMENSIONS: Final = 4
#: Pictures in one run, where the file takes any number.
_AT_ONCE: Final = 16
#: What `fit` does, in words for reports.
RESIZE: Final = "area where both sides shrink, else bilinear"
#: How a network is given.
FORM: Final = "FILE[,size=WxH][,mean=M][,std=S][,colour=bgr]"
_KEYS: Final = ("size", "mean", "std", "colour")
_SIZE: Final = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """A network with one picture (N, 3, height, width) as its input.

    Attributes:
        path: ONNX file.
        size: width and height of its pictures, None for those that the file says.
        mean: subtracted from levels of 0 to 255.
        std: by which they are divided then.
        colour: order of the channels.
    """

    path: Path
    size: tuple[int, int] | None = None
    mean: Levels = 127.5
    std: Levels = 127.5
    colour: Literal["rgb", "bgr"] = "rgb"


def parse_network(text: str, option: str) -> NetworkSettings:
    """The network of a text like `net.onnx,size=128x256,mean=123.7/116.3/103.5,std=58.4,colour=bgr`.

    Args:
        text: as given.
        option: by which, for messages.

    Raises:
        UsageError: a part cannot be meant.
    """
    path, *parts = re.split(rf",(?=(?:{'|'.join(_KEYS)})=)", text)
    if re.search(r",\w+=", path):
        raise UsageError(f"{option} {text}: expected {FORM}")
    given = dict(part.split("=", 1) for part in parts)
    if not path or len(given) != len(parts):
        raise UsageError(f"{option} {text}: expected {FORM}, each at most once")
    size = None
    if "size" in given:
        found = _SIZE.fullmatch(given["size"])
        if found is None:
            raise UsageError(f"{option}: size={given['size']} is no width and height in pixels, like 128x256")
        size = int(found[1]), int(found[2])
    colour = given.get("colour", "rgb")
    if colour not in ("rgb", "bgr"):
        raise UsageError(f"{option}: colour={colour}, expected rgb or bgr")
    return NetworkSettings(
        Path(path),
        size,
        _levels(given.get("mean", "127.5"), f"{option}: mean"),
        _levels(given.get("std", "127.5"), f"{option}: std", positive=True),
        cast("Literal['rgb', 'bgr']", colour),
    )


class PictureNetwork:
    """A user's network, on the CPU.

    Args:
        settings: which, and what it takes.
        say_size: how the user gives a size, for messages.

    Attributes:
        size: width and height of its pictures, None where it takes any and none was given.
        sha256: of the file.

    Raises:
        UsageError: there is no such file, or its pictures have another size than was given.
        BundleError: it is not an ONNX file of such a network.
    """

    def __init__(self, settings: NetworkSettings, *, say_size: str) -> None:
        # Imported here: nobody else who looks at a result needs onnx.
        from engines.importers.network import read_network

        self.settings = settings
        try:
            network = read_network(settings.path)
        except BundleError as error:
            raise BundleError(str(error).replace("export the detector", "export the network")) from None
        shape = network.picture.shape or ()
        if len(shape) != _DIMENSIONS or shape[1] != 3:
            raise BundleError(f"{settings.path} takes pictures of shape {shape}, expected (N, 3, height, width)")
        if network.others:
            names = ", ".join(port.name for port in network.others)
            raise BundleError(f"{settings.path} takes {names} besides a picture; export it with a picture alone")
        self.size = _size(settings, shape[3], shape[2], say_size)
        self.sha256 = sha256_file(settings.path)
        self._at_once = 1 if isinstance(shape[0], int) else _AT_ONCE
        self._input = network.picture.name
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(
                network.original.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise self._failed(error) from error
        self._half = "float16" in self._session.get_inputs()[0].type
        self._outputs = [output.name for output in self._session.get_outputs()]

    @property
    def name(self) -> str:
        """The file's name and the beginning of its hash."""
        return f"{self.settings.path.name} (sha256 {self.sha256[:12]})"

    def first(self, pictures: Pictures) -> Floats:
        """The first output for some pictures, float32 (N, ...).

        Args:
            pictures: (N, height, width, 3) of the network's size.

        Raises:
            BundleError: the network fails, or does not give one answer for each picture.
        """
        return self._gathered(pictures, self._outputs[:1])[0]

    def all(self, pictures: Pictures) -> list[Floats]:
        """All outputs for some pictures, float32 (N, ...) each.

        Args:
            pictures: (N, height, width, 3) of the network's size.

        Raises:
            BundleError: the network fails, or does not give one answer for each picture.
        """
        return self._gathered(pictures, self._outputs)

    def _gathered(self, pictures: Pictures, outputs: list[str]) -> list[Floats]:
        starts = range(0, len(pictures), self._at_once)
        parts = [self._run(pictures[at : at + self._at_once], outputs) for at in starts]
        return [np.concatenate(answers) for answers in zip(*parts, strict=True)]

    def _run(self, pictures: Pictures, outputs: list[str]) -> list[Floats]:
        coloured = pictures[..., ::-1] if self.settings.colour == "bgr" else pictures
        mean, std = np.asarray(self.settings.mean, np.float32), np.asarray(self.settings.std, np.float32)
        blob = ((coloured.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
        feed = np.ascontiguousarray(blob, np.float16 if self._half else np.float32)
        try:
            answers = [np.asarray(found, np.float32) for found in self._session.run(outputs, {self._input: feed})]
        except Exception as error:
            raise self._failed(error) from error
        if any(answer.ndim < 2 or len(answer) != len(pictures) for answer in answers):
            shapes = ", ".join(str(answer.shape) for answer in answers)
            raise BundleError(
                f"{self.settings.path} gives {shapes} for {len(pictures)} pictures, expected ({len(pictures)}, ...)"
            )
        return answers

    def _failed(self, error: Exception) -> BundleError:
        return BundleError(f"{self.settings.path} cannot be run: {' '.join(str(error).split())}")


def fit(picture: Pictures, size: tuple[int, int] | None) -> Pictures:
    """A picture at another size: means of areas where both sides shrink, else bilinear.

    Args:
        picture: (height, width, 3).
        size: width and height; None leaves it as it is.
    """
    if size is None or (picture.shape[1], picture.shape[0]) == size:
        return picture
    shrinks = picture.shape[1] > size[0] and picture.shape[0] > size[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast("Pictures", cv2.resize(np.ascontiguousarray(picture), size, interpolation=way))


def _size(settings: NetworkSettings, width: int | str, height: int | str, say_size: str) -> tuple[int, int] | None:
    if isinstance(width, int) and isinstance(height, int):
        if settings.size not in (None, (width, height)):
            raise UsageError(f"{settings.path} takes pictures of {width}x{height} only; leave {say_size} out")
        return width, height
    return settings.size


def _levels(text: str, what: str, *, positive: bool = False) -> Levels:
    try:
        values = [float(part) for part in text.split("/")]
    except ValueError:
        values = []
    fine = all(np.isfinite(value) and (value > 1e-6 or not positive) for value in values)
    if len(values) not in (1, 3) or not fine:
        above = " above 0" if positive else ""
        raise UsageError(f"{what}={text}, expected a level{above} for all channels, or three like 123.7/116.3/103.5")
    return values[0] if len(values) == 1 else (values[0], values[1], values[2])
