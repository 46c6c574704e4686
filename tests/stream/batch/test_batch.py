"""A batch from beginning to end, with real workers in this very process instead of Ray's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.errors import UsageError
from stream.batch import batch as whole
from stream.batch import cluster
from stream.batch.batch import Batch, Ended, Where, estimate, run_batch
from stream.batch.dispatch import Rules
from stream.batch.folder import Extras
from stream.batch.inputs import Layout
from stream.batch.jobs import Order
from stream.batch.worker import Worker
from stream.config import RunSettings, make_settings
from tests.fakes import noise, write_lossless
from tests.stream.batch.crews import FunctionCrew

SHARE = SimpleNamespace(cluster_resources=lambda: {"CPU": 1.0})


@pytest.fixture(autouse=True)
def workers(at_home: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[Worker] = []

    def hire(_: object, order: Order, __: object) -> FunctionCrew:
        made.append(Worker(order))
        return FunctionCrew(lambda _, job: made[-1].work(job), opened=made[-1].open())

    monkeypatch.setattr(cluster, "RayCrew", hire)
    monkeypatch.setattr(whole, "_ray", lambda *_: contextlib.nullcontext(SHARE))
    yield
    for worker in made:
        worker.close()


def make(output: Path, *inputs: object, overwrite: bool = False, extras: Extras | None = None, **options: Any) -> Batch:
    values = {"preset": "faces", "face": "mask", "codec": "ffv1", "overwrite": overwrite} | options
    return Batch(
        [str(one) for one in inputs],
        Layout(output),
        make_settings(RunSettings, values),
        extras or Extras(overwrite=overwrite),
        Rules(1, attempts=1),
        Where(workers=1),
    )


def call(*arguments: Any, **options: Any) -> tuple[Ended, list[str]]:
    """How a batch ended, and what was done in it."""
    done: list[str] = []
    ended = run_batch(make(*arguments, **options), on_end=lambda name, _: done.append(name))
    return ended, done


def clip(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lossless(path, noise(3, seed=seed))


def files(output: Path) -> list[str]:
    found = (str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith(".standin"))


def test_another_folder_with_the_same_names_replaces_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out"
    monday, tuesday = clip(tmp_path / "monday/front.mkv"), clip(tmp_path / "tuesday/front.mkv", seed=1)
    assert call(output, monday.parent)[0].counts.done == 1
    before = (output / "front.mkv").read_bytes()
    for _ in range(2):
        ended, _ = call(output, tuesday.parent)
        ((name, error),) = ended.troubles
        assert name == "front.mkv"
        assert error == f"its result was made of {monday}: give --base, another --output, or --overwrite"
        assert (output / "front.mkv").read_bytes() == before
    # An archive that was moved is the same as before.
    monday.parent.rename(tmp_path / "archive")
    assert call(output, tmp_path / "archive")[0].counts.kept == 1
    assert call(output, tmp_path / "archive")[1] == []
    assert call(output, tuesday.parent, overwrite=True)[0].counts.done == 1
    assert (output / "front.mkv").read_bytes() != before


def test_a_file_that_is_reached_in_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = clip(tmp_path / "day/front.mkv")
    with pytest.raises(UsageError, match=r"is given twice, and would become both day/front\.mkv and front\.mkv"):
        call(tmp_path / "out", "d*", "day/front.mkv")
    assert files(tmp_path / "out") == []
    assert call(tmp_path / "out", "day", f"local://{source}", "day/*.mkv")[1] == ["front.mkv"]


def test_a_pattern_in_a_list_leads_nowhere_else(tmp_path: Path) -> None:
    raw = {path: path.read_bytes() for path in (clip(tmp_path / f"day{n}/front.mkv", seed=n) for n in range(2))}
    (tmp_path / "list.txt").write_text("day*/front.mkv\n")
    ended, _ = call(tmp_path / "anon", f"@{tmp_path / 'list.txt'}", overwrite=True, extras=Extras(reports=False))
    assert ended.counts.done == 2
    assert files(tmp_path / "anon") == ["day0/front.mkv", "day1/front.mkv"]
    assert {path: path.read_bytes() for path in raw} == raw


def test_what_lies_beside_results_is_made_good_by_the_next_call(tmp_path: Path) -> None:
    source, output = clip(tmp_path / "day/a.mkv"), tmp_path / "out"
    (source.parent / "a.srt").write_text("words")
    (source.parent / "a.json").write_bytes(bytes(99))
    os.utime(source, ns=(10**18, 10**18))
    call(output, source.parent)
    assert files(output) == ["a.mkv", "a.mkv.report.json"]
    ended, done = call(output, source.parent, extras=Extras(sidecars=("*.srt",), times=True))
    assert (done, ended.counts.kept, ended.counts.failed) == ([], 1, 0)
    # The text in JSON alone.
    assert ended.others == 1
    assert files(output) == ["a.mkv", "a.mkv.report.json", "a.srt"]
    assert (output / "a.mkv").stat().st_mtime_ns == 10**18
    for _ in range(2):
        ended, _ = call(output, source.parent, extras=Extras(sidecars=("*",)))
        assert ended.troubles == [("a.mkv", f"{source.parent / 'a.json'} is not copied: it is no text")]
    (output / "a.mkv.report.json").unlink()
    assert call(output, source.parent)[1] == ["a.mkv"]
    assert files(output) == ["a.mkv", "a.mkv.report.json", "a.srt"]
    assert call(output, source.parent, extras=Extras(reports=False), seed=1)[1] == ["a.mkv"]
    assert files(output) == ["a.mkv", "a.srt"]


@pytest.mark.parametrize("extras", [Extras(sidecars=("*.srt",)), Extras(times=True)])
def test_what_there_is_for_files_alone_is_refused_for_stores(tmp_path: Path, extras: Extras) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/bucket/a.mkv", b"x")
    (tmp_path / "list.txt").write_text("memory://bucket/a.mkv\n")
    for text in ("memory://bucket", f"@{tmp_path / 'list.txt'}"):
        with pytest.raises(UsageError, match=r"are for files on this machine's disks, not for memory:///bucket/a\.mkv"):
            call(tmp_path / "out", text, extras=extras)
    fsspec.filesystem("memory").store.clear()


def test_an_estimate_is_made_with_a_file_that_can_be_read(tmp_path: Path) -> None:
    clip(tmp_path / "day/good.mkv")
    (tmp_path / "day/bad.mp4").write_bytes(bytes(10**6))
    found = estimate(make(tmp_path / "out", tmp_path / "day"))
    assert found.speed is not None
    assert found.counts.waiting == 2
    (tmp_path / "day/good.mkv").unlink()
    found = estimate(make(tmp_path / "out", tmp_path / "day"))
    assert (found.speed, found.seconds, found.counts.waiting) == (None, 0.0, 1)
    assert not (tmp_path / "out").exists()


def test_ray_on_this_machine_is_its_own_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[dict[str, Any]] = []
    fake = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **options: began.append(options), shutdown=lambda: None
    )
    monkeypatch.setattr(cluster, "_imported", lambda: fake)
    for name in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with cluster.local(2, tmp_path):
        assert [options["address"] for options in began] == ["local"]
