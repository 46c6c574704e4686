"""Records of `standin bench`: what was measured, on what, and what could not be. Numbers and short texts alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import SinkError, UsageError
from engines.runtime import Device
from stream.detectors.graphs import DetectorPrecision
from stream.generators.open import Precision
from stream.sinks.target import Target

SCHEMA_VERSION: Final = 1

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(allow_inf_nan=False, ge=0)]
#: 50th, 95th and 99th percentile.
Share = Literal["p50", "p95", "p99"]
SHARES: Final[tuple[Share, ...]] = ("p50", "p95", "p99")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Record):
    """A figure that was measured several times.

    Attributes:
        median: of all runs.
        lowest: of all runs.
        highest: of all runs.
        runs: how many there were; with one, nothing is known of the noise.
    """

    median: Finite
    lowest: Finite
    highest: Finite
    runs: int = Field(ge=1)

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median=statistics.median(values), lowest=min(values), highest=max(values), runs=len(values))


class Case(_Record):
    """What is measured: two results with the same case can be compared.

    Attributes:
        preset: whose engines run.
        device: where they run.
        precision: of generators.
        persons: that are put into every frame in the place of what the detectors answer; None for what they find.
    """

    preset: str
    device: Device
    precision: Precision
    persons: int | None = Field(default=None, ge=0)

    def __str__(self) -> str:
        several = "person" if self.persons == 1 else "persons"
        persons = "as found" if self.persons is None else f"{self.persons} {several}"
        return f"{self.preset}, {self.device}, {self.precision}, {persons}"


class Span(_Record):
    """The time in which a stage worked on a frame, in milliseconds from the first span that is shown."""

    stage: str
    frame: int
    begin: Finite
    end: Finite


class Histogram(_Record):
    """How many values lie in classes of one width, of which the first begins at `low`."""

    low: Finite
    width: Annotated[float, Field(allow_inf_nan=False, gt=0)]
    counts: tuple[Annotated[int, Field(ge=0)], ...]


class Stage(_Record):
    """One stage of the pipeline.

    Attributes:
        latency: milliseconds for one frame, without the time in which it waits for the stage.
        busy: share of the time in which the stage worked on any frame.
    """

    latency: dict[Share, Spread]
    busy: Spread


class FlatOut(_Record):
    """A run as fast as it goes, as a file is anonymized.

    Attributes:
        rate: frames per second from the first frame's decoding to the finished output.
        latency: milliseconds from the beginning of a frame's decoding until it was written, queues included.
        stages: by name.
        timeline: of some frames in the middle of the last run.
        frames: in each run, at least.
    """

    rate: Spread
    latency: dict[Share, Spread]
    stages: dict[str, Stage]
    timeline: tuple[Span, ...] = ()
    frames: int = Field(ge=1)


class Paced(_Record):
    """A run at a camera's pace.

    Attributes:
        rate: frames per second that came.
        latency: milliseconds from the moment at which a frame was due until it was written.
        histogram: of all runs.
    """

    rate: NotNegative
    latency: dict[Share, Spread]
    histogram: Histogram


class StartUp(_Record):
    """Seconds until the first frame could be taken: the process, the engines, and their first runs."""

    process: NotNegative
    engines: NotNegative
    first_runs: NotNegative

    @property
    def total(self) -> float:
        """All of it."""
        return self.process + self.engines + self.first_runs


class Memory(_Record):
    """Mebibytes of the process that measured (VmHWM, VmRSS), and of the GPU, None where it cannot be read.

    `gpu` is what the whole GPU had in use at most, `gpu_before` what it had in use before the engines were opened.
    """

    peak: NotNegative | None = None
    resident: NotNegative | None = None
    gpu: NotNegative | None = None
    gpu_before: NotNegative | None = None


class Power(_Record):
    """Watts on average while frames ran flat out, None where they cannot be read."""

    gpu: NotNegative | None = None
    processor: NotNegative | None = None


class EngineRun(_Record):
    """One graph, run by itself.

    Attributes:
        bundle: whose graph it is.
        graph: its name there.
        batch: rows in one run, 0 where the picture decides (heads).
        inputs: what it was fed.
        milliseconds: of one run, from arrays on the host to arrays on the host.
        on_device: milliseconds of a run whose inputs and outputs stay on the device, None where that was not measured.
        provider: what really ran it.
        tf32: whether a GPU computed float32 products in TF32, None where there is no such thing or it cannot be told.
        nodes: of the graph; None where it is not told where they are, or there is no other place than the CPU.
        on_cpu: operator -> nodes on the CPU although the graph was to run elsewhere, None with `nodes`.
    """

    bundle: str
    graph: str
    batch: int = Field(ge=0)
    inputs: str
    milliseconds: Spread
    on_device: Spread | None = None
    provider: str
    tf32: bool | None = None
    nodes: int | None = Field(default=None, ge=0)
    on_cpu: dict[str, int] | None = None

    @property
    def rate(self) -> Spread | None:
        """Rows per second, None where the picture decides how many there are."""
        if not self.batch:
            return None
        low, middle, high = (
            1000 * self.batch / value
            for value in (
                self.milliseconds.highest,
                self.milliseconds.median,
                self.milliseconds.lowest,
            )
        )
        return Spread(median=middle, lowest=low, highest=high, runs=self.milliseconds.runs)


class BundleNote(_Record):
    """A bundle that ran, and where its weights come from."""

    name: str
    digest: str
    weights: str


class Content(_Record):
    """What was in the frames, each on average, so that it can be seen whether anything was done at all."""

    persons: NotNegative
    faces: NotNegative
    plates: NotNegative
    generated: NotNegative
    withheld: int = Field(ge=0)
    reasons: tuple[str, ...] = ()


class Figures(_Record):
    """All that was measured of a case.

    Attributes:
        flat_out: frames as fast as they can be.
        paced: frames at a pace.
        start_up: before the first frame.
        memory: of the process and the GPU.
        power: while frames ran flat out.
        content: what was in the frames.
        providers: what ran each graph.
        bundles: that were used.
        lookahead: frames that a run waits for.
        parallel: frames that are looked at side by side.
        painting: frames that are painted side by side.
        encoder: what wrote frames flat out, None where nothing did.
        engines: graphs by themselves.
        engines_missing: of which there was nothing to run.
    """

    flat_out: FlatOut
    paced: Paced
    start_up: StartUp
    memory: Memory
    power: Power
    content: Content
    providers: dict[str, str]
    bundles: tuple[BundleNote, ...]
    lookahead: int
    parallel: int
    painting: int = 1
    encoder: str | None = None
    engines: tuple[EngineRun, ...] = ()
    engines_missing: tuple[str, ...] = ()


class Result(_Record):
    """A case, and its figures or the reason why there are none."""

    case: Case
    figures: Figures | None = None
    reason: str | None = None


class Machine(_Record):
    """Where it was measured.

    Attributes:
        processor: its name.
        cores: that the process may use.
        all_cores: that the system has.
        governor: how the cores' clock is chosen, None where the system does not say.
        memory_gib: of the system.
        load: processes that ran or waited to run before the first case, on average over a minute.
        system: its name and the architecture.
        gpu: its name, None where there is none that can be asked.
        driver: its version.
    """

    processor: str
    cores: int
    all_cores: int
    governor: str | None = None
    memory_gib: float
    load: float | None = None
    system: str
    gpu: str | None = None
    driver: str | None = None


class Clip(_Record):
    """What was looked at. Of a user's own video nothing but its size and pace is kept, not even its name."""

    about: str
    width: int
    height: int
    rate: NotNegative
    frames: int | None = None


class Settings(_Record):
    """How it was measured.

    Attributes:
        seconds: that a run was to take, about.
        runs: of each kind.
        encode: whether frames were encoded; else they were thrown away.
        threads: for the engines, None for one per core.
        detector_precision: as in the settings of a run.
        detect_size: likewise, None for the preset's.
        tiles: likewise.
    """

    seconds: float
    runs: int
    encode: bool
    threads: int | None = None
    detector_precision: DetectorPrecision = "auto"
    detect_size: int | None = None
    tiles: int = 1


class Record(_Record):
    """All of one call of `standin bench`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    made: str
    machine: Machine
    versions: dict[str, str]
    clip: Clip
    settings: Settings
    results: tuple[Result, ...]

    @property
    def measured(self) -> tuple[tuple[Case, Figures], ...]:
        """The cases that have figures."""
        return tuple((r.case, r.figures) for r in self.results if r.figures is not None)


def read_record(path: Path) -> Record:
    """A record that `standin bench --json` wrote.

    Raises:
        UsageError: it cannot be read, is none, or is one of another schema version.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise UsageError(f"cannot read {path}: {reason}; expected a file of: standin bench --json") from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version is None:
        raise UsageError(f"{path} is no record of: standin bench --json")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema version {version!r}, this release reads {SCHEMA_VERSION}; measure again, or compare "
            "with the release that wrote it"
        )
    try:
        return Record.model_validate_json(json.dumps(found))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path} is no record of this release: {where}: {first['msg']}") from error


def write_text(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file that is complete or not there.

    Raises:
        SinkError: it cannot be written, or has appeared meanwhile and may not be replaced.
    """
    target = Target(path, overwrite=overwrite)
    try:
        target.temporary.write_text(text, encoding="utf-8")
        target.commit()
    except OSError as error:
        if isinstance(error, SinkError):
            raise
        raise SinkError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        target.discard()
