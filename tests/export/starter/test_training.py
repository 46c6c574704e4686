from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.errors import CheckpointError, ExportError, UsageError
from export.starter.training import (
    Average,
    Budget,
    CsvLog,
    cosine,
    load_checkpoint,
    save_checkpoint,
    seeded,
    train,
)


class Walk:
    """Drifts by what is drawn, with numpy and with torch; a `Task`."""

    def __init__(self, broken_at: int = -1) -> None:
        self.place = torch.zeros(2, dtype=torch.float64)
        self.began: list[int] = []
        self.shares: list[float] = []
        self.broken_at = broken_at

    def state(self) -> dict[str, Any]:
        return {"place": self.place}

    def load(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"].clone()

    def begin(self, step: int) -> None:
        self.began.append(step)

    def step(self, draw: np.random.Generator, done: float) -> dict[str, float]:
        self.place = 0.9 * self.place + torch.randn(2, dtype=torch.float64) + draw.normal()
        self.shares.append(done)
        return {"x": float("nan") if len(self.shares) - 1 == self.broken_at else float(self.place[0])}


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, first, second = Walk(), Walk(), Walk()
    assert train(whole, tmp_path / "a", Budget(steps=7), seed=3) == 7
    assert train(first, tmp_path / "b", Budget(steps=4), seed=3) == 4
    assert not torch.equal(first.place, whole.place)
    assert train(second, tmp_path / "b", Budget(steps=7), seed=3, resume=True) == 7
    assert torch.equal(second.place, whole.place)
    assert second.began == [4]
    other = Walk()
    train(other, tmp_path / "c", Budget(steps=7), seed=4)
    assert not torch.equal(other.place, whole.place)


def test_a_run_that_is_finished_does_nothing_more(tmp_path: Path) -> None:
    train(Walk(), tmp_path, Budget(steps=2), seed=0)
    again = Walk()
    assert train(again, tmp_path, Budget(steps=2), seed=0, resume=True) == 2
    assert again.shares == []


def test_schedules_are_told_the_share_of_the_budget(tmp_path: Path) -> None:
    walk = Walk()
    train(walk, tmp_path, Budget(steps=4), seed=0)
    assert walk.shares == [0, 0.25, 0.5, 0.75]


def test_minutes_end_a_run_and_count_over_interruptions(tmp_path: Path) -> None:
    assert train(Walk(), tmp_path, Budget(steps=10**9, minutes=0.002), seed=0) > 1
    assert load_checkpoint(tmp_path / "checkpoint.pt")["seconds"] >= 0.12
    again = Walk()
    train(again, tmp_path, Budget(minutes=0.002), seed=0, resume=True)
    assert again.shares == []


@pytest.mark.parametrize(
    ("budget", "step", "seconds", "share"),
    [
        (Budget(steps=10), 5, 1e9, 0.5),
        (Budget(minutes=2), 10**9, 30, 0.25),
        (Budget(steps=10, minutes=1), 1, 30, 0.5),
        (Budget(steps=0), 0, 0, 1),
        (Budget(steps=3), 9, 0, 1),
    ],
)
def test_a_budget_is_used_up_by_what_comes_first(budget: Budget, step: int, seconds: float, share: float) -> None:
    assert budget.done(step, seconds) == share


def test_a_budget_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match="no end"):
        Budget()


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    train(Walk(), tmp_path, Budget(steps=1), seed=0)
    with pytest.raises(UsageError, match="holds a training already"):
        train(Walk(), tmp_path, Budget(steps=2), seed=0)
    with pytest.raises(UsageError, match="seed 0, not 1"):
        train(Walk(), tmp_path, Budget(steps=2), seed=1, resume=True)


def test_a_step_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    train(Walk(), tmp_path, Budget(steps=2), seed=0)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ExportError, match="step 3: x is not finite"):
        train(Walk(broken_at=1), tmp_path, Budget(steps=9), seed=0, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_log_has_means_and_no_line_twice(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv", 0)
    for step in range(1, 5):
        log.add({"loss": float(step)})
        if step % 2 == 0:
            log.write(step, step / 10)
    lines = ["step,seconds,loss", "2,0.2,1.5", "4,0.4,3.5"]
    assert (tmp_path / "log.csv").read_text().splitlines() == lines
    # The checkpoint was written after step 3: the line of step 4 comes again.
    log = CsvLog(tmp_path / "log.csv", 3)
    log.add({"loss": 9.0})
    log.write(4, 0.5)
    assert (tmp_path / "log.csv").read_text().splitlines() == [*lines[:2], "4,0.5,9"]
    log = CsvLog(tmp_path / "log.csv", 0)
    log.add({"loss": 1.0})
    log.write(1, 0.1)
    assert (tmp_path / "log.csv").read_text().splitlines() == [lines[0], "1,0.1,1"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"x": torch.ones(2)})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"x": lambda: 0})
    assert torch.equal(load_checkpoint(path)["x"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ExportError, match="cannot be written"):
        save_checkpoint(tmp_path / "missing" / "a.pt", {})


class Hostile:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def test_a_checkpoint_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Hostile()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt is no checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
    assert "must not run" not in capsys.readouterr().out
    torch.save([1], tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="holds list"):
        load_checkpoint(tmp_path / "b.pt")


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", {"task": {}, "seed": 0, "step": 1, "seconds": 0.0})
    with pytest.raises(CheckpointError, match="not of this training"):
        train(Walk(), tmp_path, Budget(steps=2), seed=0, resume=True)


def test_the_average_forgets_the_first_weights_soon_and_copies_counts() -> None:
    module = torch.nn.BatchNorm1d(1)
    assert module.running_mean is not None
    assert module.num_batches_tracked is not None
    average = Average(module, decay=0.99)
    module.running_mean.fill_(1.0)
    module.num_batches_tracked.fill_(7)
    average.update(module, 0)
    assert average.values["running_mean"].item() == pytest.approx(0.95)
    assert average.values["num_batches_tracked"].item() == 7
    average.update(module, 10**6)
    assert average.values["running_mean"].item() == pytest.approx(0.9505)


def test_draws_depend_on_seed_and_step_alone() -> None:
    def drawn(seed: int, step: int) -> tuple[float, float]:
        draw = seeded(seed, step)
        return float(draw.normal()), float(torch.randn(()))

    first = drawn(1, 2)
    assert drawn(1, 3) != first
    assert drawn(2, 2) != first
    assert drawn(1, 2) == first


def test_the_cosine_ends_low() -> None:
    assert [cosine(done, lowest=0.1) for done in (0, 1, 2)] == pytest.approx([1, 0.1, 0.1])
    assert cosine(0.5, lowest=0) == pytest.approx(0.5)


def test_an_interrupted_run_ends_after_its_step_and_goes_on_from_there(tmp_path: Path) -> None:
    class Pressed(Walk):
        def step(self, draw: np.random.Generator, done: float) -> dict[str, float]:
            if len(self.shares) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(draw, done)

    before = signal.getsignal(signal.SIGINT)
    whole, stopped, resumed = Walk(), Pressed(), Walk()
    train(whole, tmp_path / "a", Budget(steps=7), seed=3)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
        train(stopped, tmp_path / "b", Budget(steps=7), seed=3)
    assert signal.getsignal(signal.SIGINT) is before
    assert train(resumed, tmp_path / "b", Budget(steps=7), seed=3, resume=True) == 7
    assert resumed.began == [3]
    assert torch.equal(resumed.place, whole.place)


def test_a_second_interruption_is_not_waited_for(tmp_path: Path) -> None:
    class Pressed(Walk):
        def step(self, draw: np.random.Generator, done: float) -> dict[str, float]:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(draw, done)

    stopped = Pressed()
    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path / "a", Budget(steps=7), seed=3)
    assert stopped.shares == []
    assert not (tmp_path / "a" / "checkpoint.pt").exists()
