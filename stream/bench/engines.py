"""A benchmark's engines: opened as a run opens them, each graph timed; and generators' graphs by themselves."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from engines.bundle import Bundle
from engines.errors import BundleError, OutOfMemoryError, StandinError, TensorError
from engines.manifest import Graph
from engines.runtime import Device, Runtime, open_runtime
from engines.runtime_onnx import OnnxRuntime
from engines.store import Store
from stream import assemble
from stream.bench.frames import TimedAnonymizer
from stream.bench.people import PlacedRuntime
from stream.bench.records import BundleNote, EngineRun, Spread
from stream.bench.wrapped import WrappedRuntime
from stream.config import AnonymizerSettings
from stream.cores import frames_painted_at_once, share_cores
from stream.detectors.base import Detector
from stream.detectors.graphs import detector_graph
from stream.detectors.pictures import Form, open_pictures
from stream.detectors.single_stage import SingleStageDetector
from stream.detectors.tiled import together
from stream.detectors.two_stage import TwoStageDetector
from stream.frame import Frame
from stream.generators.base import Array
from stream.generators.open import GENERATOR_GRAPHS, Precision

if TYPE_CHECKING:
    from engines.resident import Feeds

#: An engine's runs go on for so many seconds, but are no fewer and no more than so many.
_SECONDS: Final = 0.7
_FEWEST, _MOST = 3, 50
#: What takes so many seconds is run once, after its first run.
_SLOW: Final = 3.0


class TimedRuntime(WrappedRuntime):
    """Notes how long runs of a graph take: those on the largest input, as some networks look twice, once at less.

    Args:
        bundle: whose graph it is.
        name: of the graph.
        inner: runs it.
    """

    def __init__(self, bundle: Bundle, name: str, inner: Runtime) -> None:
        super().__init__(bundle, name, inner)
        #: Seconds of each run on the largest input.
        self.seconds: list[float] = []
        #: Of these runs' picture, or of their largest input.
        self.shape: tuple[int, ...] = ()
        #: Boxes of these runs, None where it takes none.
        self.boxes: int | None = None
        #: Whether the last of these runs' inputs are kept, which takes memory.
        self.keeps = False
        self.feeds: Feeds = {}

    def _run_there(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        began = time.perf_counter()
        answer = self._inner.run(feeds, keep)
        self._note(time.perf_counter() - began, feeds)
        return answer

    def _note(self, seconds: float, feeds: Feeds) -> None:
        largest = max(feeds.values(), key=lambda array: math.prod(array.shape))
        shape = tuple(feeds.get("image", largest).shape)
        boxes = feeds["boxes"].shape[0] if "boxes" in feeds else None
        size, before = ((math.prod(s), b or 0) for s, b in ((shape, boxes), (self.shape, self.boxes)))
        if self.seconds and size < before:
            return
        if size != before:
            self.seconds.clear()
        self.seconds.append(seconds)
        self.shape, self.boxes = shape, boxes
        if self.keeps:
            self.feeds = dict(feeds)

    def figures(self) -> EngineRun:
        """Of the runs so far, of which there is at least one."""
        sides = "x".join(map(str, self.shape))
        placement = self.placement
        return EngineRun(
            bundle=self.bundle,
            graph=self.name,
            batch=1 if self.boxes is None else self.boxes,
            inputs=sides if self.boxes is None else f"{self.boxes} boxes, {sides}",
            milliseconds=Spread.of([1000 * seconds for seconds in self.seconds]),
            provider=self.provider,
            tf32=self.tf32,
            nodes=placement and placement.nodes,
            on_cpu=placement and dict(placement.on_cpu),
        )


@dataclass(frozen=True)
class Eyes:
    """The detectors of a case.

    Attributes:
        detector: all detectors as one.
        runtimes: of their graphs.
    """

    detector: Detector
    runtimes: tuple[TimedRuntime, ...]

    def look(self, frame: Frame) -> tuple[EngineRun, ...]:
        """Each graph by itself, on one frame again and again."""
        for runtime in self.runtimes:
            runtime.seconds.clear()

        def once() -> None:
            # What a network with random weights answers may not make sense; that is none of a stopwatch's business.
            with contextlib.suppress(StandinError):
                self.detector.detect(frame)

        for _ in _repeats(once):
            pass
        return tuple(runtime.figures() for runtime in self.runtimes if runtime.seconds)


@dataclass(frozen=True)
class Opened:
    """The engines of a case.

    Attributes:
        anonymizer: that uses them.
        bundles: that run.
        eyes: their detectors.
    """

    anonymizer: TimedAnonymizer
    bundles: assemble.Bundles
    eyes: Eyes

    def notes(self) -> tuple[BundleNote, ...]:
        """What runs, and where its weights come from."""
        return tuple(
            BundleNote(
                name=bundle.manifest.name,
                digest=bundle.digest,
                weights=_weights(bundle),
            )
            for bundle in self.bundles.all
        )


def _weights(bundle: Bundle) -> str:
    """What a bundle's manifest says of its weights, without anybody's folders."""
    origin = bundle.manifest.provenance
    return f"{origin.artefact}: {'a local file' if Path(origin.source).is_absolute() else origin.source}"


@contextlib.contextmanager
def opened_engines(
    settings: AnonymizerSettings, store: Store, *, persons: int | None, aspect: float
) -> Iterator[Opened]:
    """The engines of settings, as a run of a file has them.

    Args:
        settings: of the case.
        store: where bundles are.
        persons: how many people are put into what detectors answer, None for none but those they find.
        aspect: width over height of the frames.

    Raises:
        StandinError: they cannot be opened here.
    """
    bundles = assemble.find_bundles(settings, store)
    parallel, _ = share_cores(settings, bundles.detectors)
    with contextlib.ExitStack() as stack:
        eyes = stack.enter_context(opened_eyes(bundles, settings, persons=persons, aspect=aspect))
        stand_ins = assemble.open_stand_ins(bundles, settings, patient=True)
        anonymizer = TimedAnonymizer(
            [eyes.detector],
            assemble.make_fills(settings),
            settings,
            stand_ins=stand_ins,
            bundles=bundles.all,
            parallel=parallel,
            painting=frames_painted_at_once(settings, list(bundles.generators.values())),
        )
        stack.callback(anonymizer.close)
        yield Opened(anonymizer, bundles, eyes)


@contextlib.contextmanager
def opened_eyes(
    bundles: assemble.Bundles,
    settings: AnonymizerSettings,
    *,
    persons: int | None,
    aspect: float,
    tf32: bool = False,
) -> Iterator[Eyes]:
    """The detectors of settings alone.

    Args:
        bundles: of the run.
        settings: of the case.
        persons: how many people are put into what detectors answer, None for none but those they find.
        aspect: width over height of the frames.
        tf32: whether a GPU may compute in TF32, which runs do not.

    Raises:
        StandinError: they cannot be opened here.
    """
    _, threads = share_cores(settings, bundles.detectors)
    runtimes: list[TimedRuntime] = []
    with contextlib.ExitStack() as stack:

        def enter(bundle: Bundle, graph: str) -> Runtime:
            inner = stack.enter_context(_open(bundle, graph, settings.device, threads, tf32=tf32))
            runtimes.append(TimedRuntime(bundle, graph, inner))
            if persons is None:
                return runtimes[-1]
            return PlacedRuntime(bundle, graph, runtimes[-1], persons=persons, aspect=aspect)

        detectors: list[Detector] = []
        for bundle in bundles.detectors:
            first = enter(bundle, detector_graph(bundle, settings.device, settings.detector_precision))
            size, threshold = settings.detect_size, settings.threshold
            pictures = open_pictures(Form.of(bundle), settings.device)
            stack.callback(pictures.close)
            if bundle.manifest.detection is None:
                detectors.append(
                    SingleStageDetector(bundle, first, longest=size, threshold=threshold, pictures=pictures)
                )
            else:
                heads = enter(bundle, "heads")
                detectors.append(
                    TwoStageDetector(bundle, first, heads, longest=size, threshold=threshold, pictures=pictures)
                )
        yield Eyes(together(detectors, settings.tiles), tuple(runtimes))


def has_tf32(device: Device, precision: Precision) -> bool:
    """Whether engines are measured with TF32 as well: where it can be switched, and float32 is what they compute in."""
    return device == "cuda" and precision == "fp32"


def _open(
    bundle: Bundle, graph: str, device: Device, threads: int | None, *, tf32: bool, bfloat16: bool = False
) -> Runtime:
    if not tf32:
        return open_runtime(bundle, graph, device=device, threads=threads, bfloat16=bfloat16)
    declared = bundle.graph(graph)
    return OnnxRuntime(bundle.file(declared.file), declared, device=device, threads=threads, tf32=True)


def generator_runs(
    bundles: Sequence[Bundle], device: Device, precision: Precision, threads: int | None, batches: Sequence[int]
) -> tuple[tuple[EngineRun, ...], tuple[str, ...]]:
    """The graphs of generators by themselves, for each size of a batch; and why some could not be run.

    Args:
        bundles: of the generators.
        device: where they run.
        precision: which graph, and whether it is computed in bfloat16.
        threads: for an operator on the CPU, None for all cores.
        batches: crops in one run.
    """
    runs: list[EngineRun] = []
    missing: list[str] = []
    wanted = [("mapping", (1,), False), (GENERATOR_GRAPHS[precision], batches, False)]
    if has_tf32(device, precision):
        wanted.append((GENERATOR_GRAPHS[precision], batches, True))
    for bundle in bundles:
        for name, sizes, tf32 in wanted:
            try:
                halved = precision == "bf16" and name != "mapping"
                runtime = _open(bundle, name, device, threads, tf32=tf32, bfloat16=halved)
            except StandinError as error:
                missing.append(f"{bundle.manifest.name}, {name}: {error}")
                continue
            with runtime:
                for size in sizes:
                    try:
                        runs.append(_graph_run(bundle, name, runtime, size))
                    except StandinError as error:
                        # Such as memory that a larger batch does not find.
                        missing.append(f"{bundle.manifest.name}, {name}, batch {size}: {error}")
    return tuple(runs), tuple(missing)


def _graph_run(bundle: Bundle, name: str, runtime: Runtime, batch: int) -> EngineRun:
    feeds = example_feeds(bundle.graph(name), batch)
    timed = TimedRuntime(bundle, name, runtime)
    first = True
    for _ in _repeats(lambda: timed.run(feeds)):
        if first:
            timed.seconds.clear()
        first = False
    return timed.figures().model_copy(update={"batch": batch, "on_device": _on_device(runtime, feeds)})


def _on_device(runtime: Runtime, feeds: Mapping[str, Array]) -> Spread | None:
    """Milliseconds of runs that neither take from the host nor give to it."""
    if not runtime.has_memory:
        return None
    kept = [tensor.name for tensor in runtime.outputs]
    seconds: list[float] = []

    def once() -> None:
        began = time.perf_counter()
        runtime.run(held, kept)
        seconds.append(time.perf_counter() - began)

    try:
        held = {name: runtime.hold(array) for name, array in feeds.items()}
        for _ in _repeats(once):
            pass
    except (OutOfMemoryError, TensorError):
        # These are never run in parts, where memory lacks or a plan takes fewer rows.
        return None
    # What the first run does besides does not count.
    return Spread.of([1000 * value for value in seconds[1:] or seconds])


def _repeats(function: Callable[[], object]) -> Iterator[int]:
    """Calls a function again and again; what the first call does besides is not counted, unless it is slow."""
    began = time.perf_counter()
    function()
    yield 0
    slow = time.perf_counter() - began > _SLOW
    began, fewest = time.perf_counter(), 1 if slow else _FEWEST
    for number in range(1, _MOST + 1):
        function()
        yield number
        if number >= fewest and time.perf_counter() - began > _SECONDS:
            return


def example_feeds(graph: Graph, batch: int | Mapping[str, int]) -> dict[str, Array]:
    """Inputs that a graph takes.

    What they hold changes its time in one place alone, where rows of tables are looked up; those lie all over them.

    Args:
        graph: as declared.
        batch: for every dimension that has no number, or for each by its name.

    Raises:
        BundleError: an input is of a type that no generator has.
    """
    rng = np.random.default_rng(0)
    shapes = {
        tensor.name: tuple(
            side if isinstance(side, int) else batch if isinstance(batch, int) else batch[side] for side in tensor.shape
        )
        for tensor in graph.inputs
    }
    # (slots, rows, width) each; without them nothing is looked up.
    tables = [shapes[tensor.name] for tensor in graph.inputs if tensor.shape and tensor.shape[0] == "S"]
    slots, rows = tables[0][:2] if tables else (1, 1)
    feeds: dict[str, Array] = {}
    for tensor in graph.inputs:
        shape, dtype = shapes[tensor.name], np.dtype(tensor.dtype)
        if dtype.kind == "f":
            feeds[tensor.name] = rng.uniform(0.1, 0.9, shape).astype(dtype)
        elif dtype.kind in "iu":
            feeds[tensor.name] = rng.integers(0, slots if tensor.name == "slot" else rows, shape).astype(dtype)
        else:
            raise BundleError(f"{graph.file} takes {tensor.name} of {tensor.dtype}, which no generator does")
    return feeds
