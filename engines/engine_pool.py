"""The engines of an engine process: each graph is opened once, however many clients ask for it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engines.batching import Batcher, Counts, Limits, limits_for
from engines.bundle import open_bundle
from engines.device_loss import is_device_lost
from engines.errors import BundleTamperedError, RuntimeFailedError
from engines.runtime import open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engines.engine_messages import Open
    from engines.runtime import Runtime

log = logging.getLogger(__name__)

#: Seconds for which an engine that nobody uses is kept: a worker that is started again wants it back.
_KEPT: Final = 60.0
#: Seconds between looks at whether a client that waits for an engine is still there.
_LOOK_AFTER: Final = 0.5
#: Seconds that opening a graph may take before it counts as hung: verifying and compiling large ones takes minutes.
_OPENING: Final = 600.0


#: Characters of an error that a watch repeats.
_MOST_TOLD: Final = 500


class Watch:
    """Notices calls that do not return, and those that found the GPU lost. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[object, tuple[str, float, float]] = {}
        self._lost: str | None = None

    @contextlib.contextmanager
    def during(self, what: str, seconds: float) -> Iterator[None]:
        """A call that should not last longer than that."""
        token = object()
        with self._lock:
            self._calls[token] = (what, time.monotonic(), seconds)
        try:
            yield
        except Exception as error:
            if is_device_lost(error):
                with self._lock:
                    self._lost = self._lost or f"{what} lost the GPU: {' '.join(str(error).split())[:_MOST_TOLD]}"
            raise
        finally:
            with self._lock:
                del self._calls[token]

    def stalled(self) -> str | None:
        """What lost the GPU, or else should have returned, the longest one first; None if nothing."""
        now = time.monotonic()
        with self._lock:
            if self._lost is not None:
                # Every later run fails at once, so that nothing would ever look as if it hung.
                return self._lost
            late = [(now - began, what) for what, began, seconds in self._calls.values() if now - began > seconds]
        if not late:
            return None
        longest, what = max(late)
        return f"{what} has not returned for {longest:.0f} s"


def open_asked(question: Open) -> Runtime:
    """Opens what a client asks for, if that is what lies where it says.

    Args:
        question: Of the client.

    Raises:
        BundleTamperedError: The bundle there is another one, or was changed.
        BundleError: There is none, it has no such graph, or its file does not fit the manifest.
        RuntimeUnavailableError: The device, its provider or its runtime is not usable here.
    """
    bundle = open_bundle(Path(question.bundle))
    if bundle.digest != question.digest:
        raise BundleTamperedError(
            f"bundle {question.bundle} has the digest {bundle.digest}, the client opened {question.digest}; "
            "it was replaced meanwhile: start the stream again"
        )
    return open_runtime(
        bundle,
        question.graph,
        device=question.device,
        threads=question.threads,
        spinning=question.spinning,
        bfloat16=question.bfloat16,
        # It would count as hung before it is done, be killed, and begin anew for ever, since nothing is kept of it.
        may_build=False,
    )


@dataclass(eq=False)
class _Engine:
    """One graph, opened or about to be."""

    opened: Future[tuple[Runtime, Batcher]] = field(default_factory=Future)
    users: int = 0
    since: float = 0.0


class EnginePool:
    """Opens graphs on demand, one engine for all clients that want the same, and closes those long unused.

    Args:
        limits: How requests for one graph share its runs.
        watch: Notices runs that hang,
        stall: which is when one takes longer than so many seconds; more where an engine plans for new shapes.
        opener: Opens a graph.
    """

    def __init__(
        self, limits: Limits, watch: Watch, stall: float, opener: Callable[[Open], Runtime] = open_asked
    ) -> None:
        self._limits = limits
        self._watch = watch
        self._stall = stall
        self._opener = opener
        self._lock = threading.Lock()
        self._engines: dict[tuple[object, ...], _Engine] = {}
        self._gone = Counts()

    @contextlib.contextmanager
    def use(self, question: Open, is_wanted: Callable[[], bool]) -> Iterator[Batcher]:
        """The engine that a client asks for; it stays open while the context lasts.

        Args:
            question: Of the client.
            is_wanted: Whether the client is still there.

        Raises:
            StandinError: It cannot be opened.
            RuntimeFailedError: The client has gone.
        """
        key = (question.digest, question.graph, question.device, question.threads, question.spinning, question.bfloat16)
        with self._lock:
            mine = key not in self._engines
            engine = self._engines.setdefault(key, _Engine())
            engine.users += 1
            unused = self._take_unused() if mine else []
        try:
            if mine:
                self._open(key, question, engine, unused)
            while not engine.opened.done() and is_wanted():
                with contextlib.suppress(TimeoutError):
                    engine.opened.result(_LOOK_AFTER)
            if not engine.opened.done():
                raise RuntimeFailedError("nobody waits for this engine any more")
            batcher = engine.opened.result()[1]
            with batcher.client():
                yield batcher
        finally:
            with self._lock:
                engine.users -= 1
                engine.since = time.monotonic()

    def _open(self, key: tuple[object, ...], question: Open, engine: _Engine, unused: list[Runtime]) -> None:
        what = f"graph {question.graph} of {Path(question.bundle).name}"
        try:
            for other in unused:
                other.close()
            with self._watch.during(f"opening {what}", _OPENING):
                runtime = self._opener(question)
            planning = max(self._stall, _OPENING) if runtime.plans_for_shapes else self._stall
            batcher = Batcher(
                runtime,
                limits_for(runtime, self._limits),
                lambda is_new: self._watch.during(f"a run of {what}", planning if is_new else self._stall),
            )
        except BaseException as error:
            with self._lock:
                del self._engines[key]
            engine.opened.set_exception(error)
            raise
        engine.opened.set_result((runtime, batcher))
        log.info("opened %s", what)

    def _take_unused(self) -> list[Runtime]:
        """Out of what is there; the caller closes them."""
        now = time.monotonic()
        unused = []
        for key, engine in tuple(self._engines.items()):
            if engine.opened.done() and not engine.users and now - engine.since > _KEPT:
                runtime, batcher = engine.opened.result()
                self._gone += batcher.counts
                del self._engines[key]
                unused.append(runtime)
        return unused

    def counts(self) -> tuple[int, Counts]:
        """How many engines there are, and what all that ever were have done."""
        with self._lock:
            opened = [engine.opened for engine in self._engines.values() if engine.opened.done()]
            total = self._gone
        batchers = [future.result()[1] for future in opened if future.exception() is None]
        return len(batchers), sum((batcher.counts for batcher in batchers), total)

    def close(self) -> None:
        """Closes all engines; whoever uses one gets an error."""
        with self._lock:
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            if engine.opened.done() and engine.opened.exception() is None:
                engine.opened.result()[0].close()
