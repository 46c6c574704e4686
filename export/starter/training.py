"""What the training of every network shares: steps that can be repeated, checkpoints, averages, a log, and an end.

A run is a folder with `checkpoint.pt` and `log.csv`. Every draw of a step comes from the run's seed and the step's
number, so that a run that was interrupted ends with the weights of one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engines.errors import CheckpointError, ExportError, UsageError

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.csv"

Progress = Callable[[str], None]
State = dict[str, Any]


class Task(Protocol):
    """A network in training."""

    def state(self) -> State:
        """All that is needed to go on: tensors, numbers, strings, and lists and dicts of them."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""

    def begin(self, step: int) -> None:
        """Is called once, before the first of this run's steps, with its number."""

    def step(self, draw: np.random.Generator, done: float) -> Mapping[str, float]:
        """One step of the optimiser.

        Args:
            draw: the step's own generator; torch's is seeded as well.
            done: share of the budget that is used up, 0 to 1, for schedules.

        Returns:
            The figures for the log; the same names in every step.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When training ends: after so many steps or minutes, whichever comes first.

    With steps alone, a run gives the same weights however often it is interrupted; with minutes, the machine's speed
    has a say.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise UsageError("training has no end; give steps or minutes")

    def done(self, step: int, seconds: float) -> float:
        """The share that is used up after so many steps and seconds, 1 at the end."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(step / self.steps if self.steps > 0 else 1.0)
        if self.minutes is not None:
            shares.append(seconds / (60 * self.minutes) if self.minutes > 0 else 1.0)
        return min(1.0, max(shares))


class Average:
    """The exponential moving average of a module's parameters and buffers.

    Args:
        module: whose values count from the beginning.
        decay: of the old value in a step; less in the first steps, so that the first weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self._decay = decay
        self.values: dict[str, Tensor] = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        """Takes in the values after step number `step`, the first being 0."""
        decay = min(self._decay, (step + 1) / (step + 20))
        with torch.no_grad():
            for name, value in module.state_dict().items():
                if value.dtype.is_floating_point:
                    self.values[name].lerp_(value, 1 - decay)
                else:
                    self.values[name].copy_(value)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Takes over stored values."""
        for name, value in self.values.items():
            value.copy_(values[name])


def cosine(done: float, *, lowest: float = 0.02) -> float:
    """The learning rate's factor by the share of the budget that is used up: half a cosine from 1 to `lowest`."""
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))


def seeded(seed: int, step: int) -> np.random.Generator:
    """The generator of a step. Torch's generators are seeded too, as code far below draws from them."""
    sequence = np.random.SeedSequence((seed, step))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return np.random.default_rng(sequence)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint whole or not at all.

    Raises:
        ExportError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            torch.save(dict(state), beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        raise ExportError(f"{path} cannot be written ({error}); give a folder with space that you may write") from error


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> State:
    """Reads a checkpoint; only tensors and plain values are accepted, code is not.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is no checkpoint of this training ({reason}); give one that it wrote") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds {type(state).__name__}, expected the state of a training")
    return state


class CsvLog:
    """A table with a line for every so many steps: step, seconds, and the figures' means since the line before.

    Args:
        path: appended to; lines of the step `after` and later ones are dropped first, since they will come again.
        after: number of steps that have been done.
    """

    def __init__(self, path: Path, after: int) -> None:
        self._path = path
        self._sums: dict[str, float] = {}
        self._count = 0
        if path.exists():
            with path.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.reader(stream))
            kept = [row for row in rows[1:] if row and int(row[0]) <= after]
            self._write(rows[:1] + kept if kept else [], "w")

    def add(self, figures: Mapping[str, float]) -> None:
        """Takes in the figures of a step."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def write(self, step: int, seconds: float) -> dict[str, float]:
        """Writes a line after so many steps, and gives its means."""
        means = {name: value / self._count for name, value in self._sums.items()}
        rows = [[str(step), f"{seconds:.1f}", *(f"{value:.6g}" for value in means.values())]]
        if not self._path.exists() or not self._path.stat().st_size:
            rows.insert(0, ["step", "seconds", *means])
        self._write(rows, "a")
        self._sums, self._count = {}, 0
        return means

    def _write(self, rows: Iterable[list[str]], mode: str) -> None:
        with self._path.open(mode, newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)


def train(
    task: Task,
    folder: Path,
    budget: Budget,
    *,
    seed: int,
    log_every: int = 50,
    save_every: int = 500,
    resume: bool = False,
    progress: Progress | None = None,
) -> int:
    """Trains until the budget is used up.

    A step whose figures are not finite ends the run before a checkpoint could hold it. Ctrl-C ends it after the step
    that is under way, with a checkpoint.

    Args:
        task: what is trained.
        folder: of the run; made if missing.
        budget: when to end; what earlier runs of the folder used counts.
        seed: of all draws.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints; one is written at the end in any case.
        resume: go on from the folder's checkpoint where there is one.
        progress: is told what is being done.

    Returns:
        The number of steps done, earlier runs included.

    Raises:
        UsageError: the folder holds a run already, and `resume` is off; or its run had another seed.
        CheckpointError: the checkpoint is not of this training.
        ExportError: a figure is not finite, or something cannot be written.
        KeyboardInterrupt: it was interrupted; the checkpoint is written.
    """
    say = progress or (lambda _: None)
    path = folder / CHECKPOINT_NAME
    folder.mkdir(parents=True, exist_ok=True)
    step, before = _start(task, path, seed, resume=resume)
    log = CsvLog(folder / LOG_NAME, step)
    started = time.monotonic()

    def seconds() -> float:
        return before + time.monotonic() - started

    def save() -> None:
        save_checkpoint(path, {"task": task.state(), "step": step, "seconds": seconds(), "seed": seed})

    if budget.done(step, before) < 1:
        task.begin(step)
    with _interruption() as interrupted:
        while (done := budget.done(step, seconds())) < 1 and not interrupted():
            figures = task.step(seeded(seed, step), done)
            if broken := [name for name, value in figures.items() if not math.isfinite(value)]:
                raise ExportError(f"step {step}: {', '.join(broken)} is not finite; lower the learning rate and resume")
            log.add(figures)
            step += 1
            if step % log_every == 0:
                means = log.write(step, seconds())
                shown = " ".join(f"{name} {value:.4g}" for name, value in means.items())
                say(f"step {step}, {seconds():.0f} s, {done:.0%}: {shown}")
            if step % save_every == 0:
                save()
        save()
        if interrupted():
            raise KeyboardInterrupt(f"stopped after step {step}, which {path} holds")
    return step


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, which is noted rather than raised: a step is done whole or not at all.

    A second one is raised as ever. In other threads than the first nothing is noted, as Python tells the first alone.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def note(number: int, frame: object) -> None:
        del number, frame
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _start(task: Task, path: Path, seed: int, *, resume: bool) -> tuple[int, float]:
    """Steps and seconds that earlier runs have used."""
    if not path.exists():
        return 0, 0.0
    if not resume:
        raise UsageError(f"{path.parent} holds a training already; resume it, or give another folder")
    state = load_checkpoint(path)
    try:
        if int(state["seed"]) != seed:
            raise UsageError(f"{path} was trained with seed {state['seed']}, not {seed}; give the same one to resume")
        task.load(state["task"])
        return int(state["step"]), float(state["seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, UsageError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is not of this training ({reason}); give its own folder") from error
