"""Settings: what a run can be told, and where that may be written."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from engines.errors import UsageError
from engines.runtime import Device
from stream.detectors.graphs import DetectorPrecision
from stream.generators.open import Precision
from stream.pace import WhenSlow
from stream.presets import CLASSICAL_PRESET, DEFAULT_PRESET, did_you_mean, find_preset
from stream.quantities import Size, TimeOrSize
from stream.raw_video import RawVideo
from stream.regions import Kind
from stream.roles import Context
from stream.stitch import Shape

OnFailure = Literal["withhold", "stop"]
#: The anonymizers that need no network.
Classical = Literal["blur", "pixelate", "mask"]
#: What becomes of regions of a kind: an anonymizer, a generator's stand-in, or `keep` for nothing at all.
Treatment = Literal["realistic", "blur", "pixelate", "mask", "keep"]


def _parse_engines(value: object) -> object:
    """`NAME=FOLDER` as given on the command line and in files."""
    if isinstance(value, (list, tuple)):
        pairs = [str(text).partition("=") for text in value]
        names = [name for name, _, _ in pairs]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)!r} is given twice")
        if wrong := [name for name, _, folder in pairs if not name or not folder]:
            raise ValueError(f"{wrong[0]!r} is not NAME=FOLDER, such as person-cse=bundles/mine")
        return {name: Path(folder) for name, _, folder in pairs}
    return value


def _parse_colour(value: object) -> object:
    if isinstance(value, str):
        digits = value.removeprefix("#")
        if len(digits) != 6 or not all(c in "0123456789abcdefABCDEF" for c in digits):
            raise ValueError(f"{value!r} is not a colour like #000000")
        return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return value


Level = Annotated[int, Field(ge=0, le=255)]
Engines = Annotated[Mapping[str, Path], BeforeValidator(_parse_engines)]
Colour = Annotated[tuple[Level, Level, Level], BeforeValidator(_parse_colour)]


class AnonymizerSettings(BaseModel):
    """What an `Anonymizer` can be told. Every field is a command line option of the same name.

    Attributes:
        preset: which bundles run, and what the settings are that are not given.
        detector: names or folders of detection bundles that run instead of the preset's; several are united.
        engine: folders of bundles that run instead of those that go by these names: a bundle's own name, or for
            generators what they replace (face, person, person-cse).
        device: where they run; never changed silently.
        engine_server: socket of the process that runs the engines (`standin serve` starts one); None for this process.
        precision: of generators.
        detector_precision: of detectors.
        threads: for the engines, None for one per core.
        face: how faces are covered; `keep` leaves them raw.
        person: how persons are covered, None for as faces are.
        plate: how licence plates are covered, None for as faces are.
        fallback: what covers regions that a generator cannot replace: too small, without a track, or not ready yet.
            Kinds that are not given are covered so, too, where faces are realistic or kept.
        context: whether generators may see pixels of regions that are still raw: `private` never, `published` as the
            published code does it.
        truncation: of latents, 0 to 1, None for what suits the generator.
        seed: of latents, None for the operating system's generator.
        cells: of `pixelate`, across and down.
        blur_radius: of `blur`, standard deviation as a share of the region's longer side.
        mask_colour: of `mask`, RGB.
        shape: what is covered of a region.
        margin: every side of a region moves out by this share of its width or height.
        mask_margin: masks of persons move out by this share of the shorter side of the person's box, by a pixel at
            least where it is not 0; holes and gaps up to that size are closed.
        mask_frames: what a person's mask covered in so many frames before is covered as well, moved along; the first
            so many masks of a track are filled to their convex hull.
        join_faces: a face in a person who is replaced belongs to that person, and is replaced with the body.
        hold: frames for which a track that misses detections stays covered.
        remember: frames after that for which somebody who is found where the track is expected gets its stand-in back.
        lookahead: frames before their first detection in which people are covered; costs as many and one more of delay.
        detect_size: the longer side of the picture that detectors see is limited to this many pixels.
        tiles: overlapping parts in each direction that detectors look at besides the whole frame; 1 for none.
        threshold: score from which a detection counts.
        deadline: seconds that a stage may take for one frame.
        on_failure: withhold frames that could not be looked at or covered, or stop at the first.
        regions: a file with regions given by hand.
        detections: a file with detections, read where it has them and written where not.
        ignore_zones: a file with polygons; what lies wholly in them stays as it is.
        only_zones: a file with polygons; what touches none of them stays as it is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = DEFAULT_PRESET
    detector: tuple[str, ...] = ()
    engine: Engines = {}
    device: Device = "cpu"
    engine_server: Path | None = None
    precision: Precision = "fp32"
    detector_precision: DetectorPrecision = "auto"
    threads: int | None = Field(default=None, ge=1)
    face: Treatment = "blur"
    person: Treatment | None = None
    plate: Treatment | None = None
    fallback: Classical = "blur"
    context: Context = "private"
    truncation: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=0)
    cells: Literal[8, 16] = 8
    blur_radius: float = Field(default=0.25, ge=0.1, le=2)
    mask_colour: Colour = (0, 0, 0)
    shape: Shape = "box"
    margin: float = Field(default=0.2, ge=0, le=2)
    mask_margin: float = Field(default=0.0, ge=0, le=1)
    mask_frames: int = Field(default=0, ge=0, le=100)
    join_faces: bool = False
    hold: int = Field(default=10, ge=0, le=10_000)
    remember: int = Field(default=50, ge=0, le=10_000)
    lookahead: int = Field(default=5, ge=0, le=1_000)
    detect_size: int = Field(default=1280, ge=32, le=16_384)
    tiles: int = Field(default=1, ge=1, le=8)
    threshold: float = Field(default=0.2, ge=0.02, le=1)
    deadline: float = Field(default=30.0, gt=0, le=86_400)
    on_failure: OnFailure = "withhold"
    regions: Path | None = None
    detections: Path | None = None
    ignore_zones: Path | None = None
    only_zones: Path | None = None

    def treatment(self, kind: Kind) -> Treatment:
        """What becomes of regions of a kind."""
        own = {Kind.FACE: self.face, Kind.PERSON: self.person, Kind.PLATE: self.plate}[kind]
        # Stand-ins and raw pixels are for kinds that are named: nobody who keeps faces has said so of persons.
        return own or (self.fallback if self.face in ("realistic", "keep") else self.face)


WhenLost = Literal["slate", "hold", "end"]
#: Who reads and writes network streams: PyAV (FFmpeg), or GStreamer.
Backend = Literal["av", "gst"]
#: Where FFmpeg decodes pictures.
DecoderDevice = Literal["cpu", "cuda"]


def _check_raw(value: str | None) -> str | None:
    """What cannot be meant is said before anything is opened."""
    if value is not None:
        RawVideo.parse(value)
    return value


class RunSettings(AnonymizerSettings):
    """What `standin run` can be told: the anonymizer's settings, and those of input and output.

    Attributes:
        codec: encoder name as PyAV knows it, or `gpu`; None for what suits the output and the device.
        crf: constant rate factor (the encoder's quality scale), None for our default.
        speed: the encoder's preset (x264: ultrafast ... veryslow), None for our default.
        audio: drop it or keep it as it is.
        metadata: strip it or keep it; embedded previews go in any case.
        overwrite: replace an existing output.
        report: write what was covered to this JSON file.
        contact_sheet: write a sheet of anonymized frames to this PNG file.
        show_regions: draw what was found on the anonymized picture.
        decoding: withhold every picture that may be wrong, or only those that the decoder itself calls damaged.
        decoder: where pictures are decoded: by the processor, or by a GPU, which conceals damage without a word and so
            needs lenient decoding.
        start: seconds at which to begin.
        end: seconds at which to stop.
        when_lost: what goes out while a live source is away: flat frames, the last anonymized one, or the end.
        reconnect_attempts: connections in a row that may fail, to a live source or to a server; None for any number.
        connect_timeout: seconds until a connection to a live source must stand.
        read_timeout: seconds without anything from a live source after which it counts as lost.
        latency_budget: milliseconds that a live picture may wait to be looked at; what waits longer is dropped.
        rtsp_transport: how RTSP sources send.
        sink_timeout: seconds in which a server must take a frame; then it counts as lost.
        insecure: take any certificate.
        when_slow: what is done when the engines cannot keep up with a live source: late pictures are dropped, fewer are
            looked at, evenly, or stand-ins are left out.
        backend: who reads and writes network streams, where both can: PyAV (FFmpeg) or GStreamer.
        video_stream: number or title of the stream to take of an input that has several.
        raw: what bare frames on standard input are like, such as `640x360@25:rgb24`.
        segment: a folder as output gets segments of this length or size, whichever is reached first.
        retain: how old segments may become, and how large all together; the oldest are deleted.
        spool: bytes of anonymized video that wait for a server that is away, to be sent when it is back.
        report_rotate: size at which the next file of a report in JSON lines begins.
        certificate: PEM file with the certificate of `rtsps-server://`.
        private_key: PEM file with its key.
    """

    codec: str | None = None
    crf: float | None = Field(default=None, ge=0, le=255)
    speed: str | None = None
    audio: Literal["drop", "keep"] = "drop"
    metadata: Literal["strip", "keep"] = "strip"
    overwrite: bool = False
    report: Path | None = None
    contact_sheet: Path | None = None
    show_regions: bool = False
    decoding: Literal["strict", "lenient"] = "strict"
    decoder: DecoderDevice = "cpu"
    start: float | None = Field(default=None, ge=0, le=1e7)
    end: float | None = Field(default=None, gt=0, le=1e7)
    when_lost: WhenLost = "slate"
    reconnect_attempts: int | None = Field(default=None, ge=0)
    connect_timeout: float = Field(default=5.0, gt=0, le=3600)
    read_timeout: float = Field(default=5.0, gt=0, le=3600)
    latency_budget: int = Field(default=500, ge=1, le=3_600_000)
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    sink_timeout: float = Field(default=10.0, gt=0, le=3600)
    insecure: bool = False
    when_slow: WhenSlow = "drop"
    backend: Backend = "av"
    video_stream: str | None = None
    raw: Annotated[str | None, AfterValidator(_check_raw)] = None
    segment: TimeOrSize | None = None
    retain: TimeOrSize | None = None
    spool: Size | None = None
    report_rotate: Size = 64_000_000
    certificate: Path | None = None
    private_key: Path | None = None

    @model_validator(mode="after")
    def _check_order(self) -> RunSettings:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError("end must be after start")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("a certificate and its private key belong together; give both or none")
        return self


#: Settings that are paths, which in a file are relative to that file.
_PATHS = (
    "report", "contact_sheet", "regions", "detections", "ignore_zones", "only_zones", "certificate", "private_key",
    "engine_server",
)  # fmt: skip

S = TypeVar("S", bound=AnonymizerSettings)


def make_settings(kind: type[S], values: Mapping[str, Any], *, origin: str = "settings") -> S:
    """Settings from plain values; what is not given is the preset's, else the default.

    Args:
        kind: `AnonymizerSettings` or `RunSettings`.
        values: by field name; `-` counts as `_`.
        origin: where the values come from, for messages.

    Raises:
        UsageError: an unknown name (the message names the closest) or a value that does not fit.
    """
    named = {key.replace("-", "_"): value for key, value in values.items()}
    for name in named:
        if name not in kind.model_fields:
            raise UsageError(f"{origin}: unknown setting {name!r}: {did_you_mean(name, kind.model_fields)}")
    if named.get("detector"):
        # Whoever brings detectors and no preset wants these to be covered; stand-ins need what they may not give.
        named.setdefault("preset", CLASSICAL_PRESET)
    preset = named.get("preset", kind.model_fields["preset"].default)
    defaults = find_preset(preset).settings if isinstance(preset, str) else {}
    try:
        return kind.model_validate({**defaults, **named})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1])
        given = f", got {first['input']!r}" if field else ""
        message = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise UsageError(f"{origin}: {field + ': ' if field else ''}{message}{given}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """What a config file says, whatever that is.

    Raises:
        UsageError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the config file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """Values of a TOML file, by field name. Relative paths in it are relative to the file.

    Raises:
        UsageError: the file cannot be read, is not TOML, or holds an unknown key.
    """
    values = read_toml(path)
    named = {key.replace("-", "_"): value for key, value in values.items()}
    settings = make_settings(RunSettings, named, origin=str(path))
    if settings.engine:
        named["engine"] = {name: path.parent / folder for name, folder in settings.engine.items()}
    if settings.detector:
        # A name is in the store wherever the file is.
        named["detector"] = [str(path.parent / text) if "/" in text else text for text in settings.detector]
    for key in _PATHS:
        if key in named:
            named[key] = path.parent / named[key]
    return named
