"""Who does what next, what is tried again, and what is set aside; with workers that need no Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.errors import SinkError, StandinError, UsageError
from stream.batch.dispatch import Dispatcher, Rules
from stream.batch.folder import Extras, OutputFolder
from stream.batch.inputs import Found
from stream.batch.jobs import Job, Opened, Outcome
from stream.config import RunSettings
from tests.fakes import noise, write_lossless
from tests.stream.batch.crews import Answer, FunctionCrew, write


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    with OutputFolder(tmp_path / "out") as opened:
        yield opened


def begin(folder: OutputFolder, *names: str) -> None:
    items = [Found(name, f"/in/{name}", 100 - number, "m") for number, name in enumerate(names)]
    folder.manifest.begin(items, "key", overwrite=False)
    folder.manifest.line_up({})


def dispatch(folder: OutputFolder, crew: FunctionCrew, **changes: object) -> Dispatcher:
    rules = Rules(**{"workers": 2, "wait": 0.001, "longest_wait": 0.002} | changes)  # type: ignore[arg-type]
    dispatcher = Dispatcher(crew, folder, rules, Extras(), RunSettings())
    dispatcher.run()
    return dispatcher


def files(folder: OutputFolder) -> dict[str, str]:
    """What has its final name."""
    below = {path.relative_to(folder.path) for path in folder.path.rglob("*") if path.is_file()}
    return {str(path): (folder.path / path).read_text() for path in below if path.parts[0] != ".standin"}


def test_everything_is_done_once_and_the_longest_first(folder: OutputFolder) -> None:
    names = [f"day/{number}.mp4" for number in range(7)]
    begin(folder, *names)
    crew = FunctionCrew()
    dispatch(folder, crew)
    assert [job.name for _, job in crew.jobs] == names
    assert files(folder) == {name: f"made of /in/{name}" for name in names}
    counts = folder.manifest.counts()
    assert (counts.done, counts.waiting, counts.frames) == (7, 0, 21)
    assert not list((folder.path / ".standin/staging").glob("*/*"))


def test_no_more_workers_begin_than_there_are_files(folder: OutputFolder) -> None:
    begin(folder, "a.mp4")
    crew = FunctionCrew()
    dispatch(folder, crew, workers=50)
    assert crew.hire() <= 3


def fails_first(times: int, answer: Answer) -> Callable[[int, Job], Answer]:
    """One file fails so often, all else goes well."""
    left = [times]

    def work(worker: int, job: Job) -> Answer:
        if job.name == "bad.mp4" and left[0]:
            left[0] -= 1
            Path(job.staging, "half").write_text("raw?")
            return answer
        return write(worker, job)

    return work


@pytest.mark.parametrize("answer", [Outcome(error="the store is busy"), "its process ended"])
def test_a_file_that_fails_is_tried_again_by_another_worker(folder: OutputFolder, answer: Answer) -> None:
    begin(folder, "bad.mp4", "a.mp4", "b.mp4", "c.mp4")
    crew = FunctionCrew(fails_first(2, answer))
    dispatch(folder, crew)
    assert folder.manifest.counts().done == 4
    workers = [worker for worker, job in crew.jobs if job.name == "bad.mp4"]
    assert len(workers) == 3
    assert workers[0] != workers[1]
    # Each attempt has a place of its own, and nothing of it is left.
    assert len({job.staging for _, job in crew.jobs if job.name == "bad.mp4"}) == 3
    assert not list((folder.path / ".standin/staging").glob("*/*"))


@pytest.mark.parametrize("answer", [Outcome(error="poison"), "poison"])
def test_a_poison_file_is_set_aside_with_its_error(folder: OutputFolder, answer: Answer) -> None:
    begin(folder, "bad.mp4", "a.mp4")
    dispatch(folder, FunctionCrew(fails_first(99, answer)))
    assert files(folder) == {"a.mp4": "made of /in/a.mp4"}
    ((name, error),) = folder.manifest.troubles()
    assert name == "bad.mp4"
    assert "poison" in error
    assert "(3 attempts)" in error


def test_what_would_end_the_same_way_is_not_tried_again(folder: OutputFolder) -> None:
    begin(folder, "bad.mp4")
    crew = FunctionCrew(fails_first(99, Outcome(error="no such codec", usage=True)))
    dispatch(folder, crew)
    assert len(crew.jobs) == 1
    assert folder.manifest.troubles() == [("bad.mp4", "no such codec")]


def test_a_worker_that_is_worn_or_stuck_is_replaced(folder: OutputFolder) -> None:
    begin(folder, "bad.mp4", "a.mp4")
    worn = FunctionCrew(fails_first(1, Outcome(error="it hung", worn=True)))
    dispatch(folder, worn, workers=1)
    assert worn.jobs[0][0] in worn.dismissed
    assert folder.manifest.counts().done == 2
    begin(folder, "bad.mp4", "b.mp4")
    stuck = FunctionCrew(fails_first(1, None))
    (folder.path / "bad.mp4").unlink()
    begin(folder, "bad.mp4")
    dispatch(folder, stuck, workers=1, stall=0.05)
    assert stuck.jobs[0][0] in stuck.dismissed
    assert (folder.path / "bad.mp4").exists()


def test_an_incomplete_input_is_kept_and_named(folder: OutputFolder) -> None:
    begin(folder, "a.mp4")

    def work(worker: int, job: Job) -> Outcome:
        write(worker, job)
        return Outcome(content="c", frames=2, problem="it ends in the middle of a picture")

    dispatch(folder, FunctionCrew(work))
    assert list(files(folder)) == ["a.mp4"]
    assert folder.manifest.troubles() == [("a.mp4", "it ends in the middle of a picture")]


def test_without_room_nothing_more_is_begun(folder: OutputFolder) -> None:
    begin(folder, "bad.mp4", *(f"{number}.mp4" for number in range(9)))
    crew = FunctionCrew(fails_first(99, Outcome(error="No space left on device", full=True)))
    dispatcher = dispatch(folder, crew, workers=1)
    assert dispatcher.stopped == "No space left on device"
    assert len(crew.jobs) == 1
    assert folder.manifest.counts().waiting == 10
    assert folder.manifest.troubles() == []


def test_stopped_it_finishes_what_is_under_way(folder: OutputFolder) -> None:
    begin(folder, *(f"{number}.mp4" for number in range(9)))
    stop: list[Callable[[], None]] = []

    def work(worker: int, job: Job) -> Outcome:
        stop[0]()
        return write(worker, job)

    crew = FunctionCrew(work)
    dispatcher = Dispatcher(crew, folder, Rules(1), Extras(), RunSettings())
    stop.append(dispatcher.stop)
    dispatcher.run()
    counts = folder.manifest.counts()
    assert (counts.done, counts.waiting) == (1, 8)
    assert len(crew.jobs) == 1


def test_given_up_in_the_middle_nothing_has_a_final_name(folder: OutputFolder) -> None:
    begin(folder, "a.mp4")

    def work(worker: int, job: Job) -> Outcome:
        write(worker, job)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Dispatcher(FunctionCrew(work), folder, Rules(1), Extras(), RunSettings()).run()
    assert files(folder) == {}
    assert not list((folder.path / ".standin/staging").glob("*/*"))
    assert folder.manifest.counts().waiting == 1


def test_a_worker_that_cannot_work_ends_the_batch_with_its_own_error(folder: OutputFolder) -> None:
    begin(folder, "a.mp4")
    with pytest.raises(UsageError, match="no such preset"):
        dispatch(folder, FunctionCrew(opened=Opened("no such preset", 2)))
    with pytest.raises(StandinError, match="bundle is missing"):
        dispatch(folder, FunctionCrew(opened=Opened("bundle is missing", 1)))
    with pytest.raises(StandinError, match="workers end before they have begun: it ended at once"):
        dispatch(folder, FunctionCrew(opened=None))
    assert folder.manifest.counts().waiting == 1


def test_workers_that_cannot_begin_are_done_without_where_others_can(folder: OutputFolder) -> None:
    begin(folder, *(f"{number}.mp4" for number in range(9)))
    crew = FunctionCrew(unfit={2: Opened("the engines are not here", 1), 3: Opened("nor here", 1)})
    dispatch(folder, crew, workers=3)
    assert folder.manifest.counts().done == 9
    assert {worker for worker, _ in crew.jobs} == {1}
    # And nobody is hired again and again for it.
    assert crew.hire() == 4


def test_it_ends_where_no_worker_can_begin_any_more(folder: OutputFolder) -> None:
    begin(folder, "a.mp4", "b.mp4", "c.mp4")
    crew = FunctionCrew(lambda *_: "killed", unfit=dict.fromkeys(range(2, 99), Opened("not here", 1)))
    with pytest.raises(StandinError, match="not here"):
        dispatch(folder, crew, workers=2)
    assert crew.hire() <= 5
    assert folder.manifest.counts().waiting == 3


def test_a_file_whose_place_is_not_to_be_had_is_set_aside_and_the_others_go_on(folder: OutputFolder) -> None:
    begin(folder, "bad.mp4", "a.mp4", "b.mp4")
    (folder.path / "bad.mp4").mkdir()
    dispatcher = dispatch(folder, FunctionCrew())
    assert dispatcher.stopped is None
    assert sorted(files(folder)) == ["a.mp4", "b.mp4"]
    assert folder.manifest.troubles() == [
        ("bad.mp4", f"cannot write {folder.path / 'bad.mp4'}: a folder has that name")
    ]
    assert not list((folder.path / ".standin/staging").glob("*/*"))


def test_without_room_for_a_result_nothing_more_is_begun(folder: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(folder, *(f"{number}.mp4" for number in range(5)))

    def full(*_: object) -> None:
        raise SinkError("cannot write: No space left on device")

    monkeypatch.setattr(folder, "put", full)
    dispatcher = dispatch(folder, FunctionCrew(), workers=1)
    assert dispatcher.stopped == "cannot write: No space left on device"
    assert folder.manifest.counts().waiting == 5


def test_a_sidecar_that_cannot_go_along_is_a_trouble_of_its_file_alone(folder: OutputFolder, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("raw")
    (tmp_path / "a.srt").write_bytes(bytes(9))
    items = [Found(name, str(tmp_path / name), 1, "m") for name in ("a.mp4", "b.mp4")]
    # The second time the results hold, and nothing is done again.
    for answer in (None, Outcome(same=True, content="c")):
        folder.manifest.begin(items, "key", overwrite=False)
        folder.manifest.line_up({})
        crew = FunctionCrew(write if answer is None else lambda *_, answer=answer: answer)
        Dispatcher(crew, folder, Rules(1), Extras(sidecars=("*.srt",)), RunSettings()).run()
        assert sorted(files(folder)) == ["a.mp4", "b.mp4"]
        assert folder.manifest.troubles() == [("a.mp4", f"{tmp_path / 'a.srt'} is not copied: it is no text")]
    assert [job.known for _, job in crew.jobs] == ["c"]


def test_what_another_input_has_made_is_told_to_the_worker(folder: OutputFolder, tmp_path: Path) -> None:
    begin(folder, "a.mp4")
    dispatch(folder, FunctionCrew())
    clip = write_lossless(tmp_path / "a.mkv", noise(75))
    folder.manifest.begin([Found("a.mp4", str(clip), 1, "m")], "others", overwrite=False)
    folder.manifest.line_up({})
    crew = FunctionCrew()
    # Before that is known, nobody looks at pieces of it.
    dispatch(folder, crew, chunk=1.0)
    assert [(job.made_of, job.piece) for _, job in crew.jobs] == [(("/in/a.mp4", "c"), None)]


def test_a_long_file_is_looked_at_in_pieces_and_then_covered_once(folder: OutputFolder, tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "long.mkv", noise(75))
    items = [Found("long.mkv", str(clip), 100, "m"), Found("short.mkv", "/in/short.mkv", 1, "m")]
    folder.manifest.begin(items, "key", overwrite=False)
    folder.manifest.line_up({})
    crew = FunctionCrew()
    dispatch(folder, crew, chunk=1.0)
    of_long = [job for _, job in crew.jobs if job.name == "long.mkv"]
    assert [(job.piece.start, job.piece.end) if job.piece else None for job in of_long] == [
        (None, 1.0), (1.0, 2.0), (2.0, None), None,
    ]  # fmt: skip
    assert of_long[-1].detections == tuple(part for job in of_long[:-1] for part in job.detections or ())
    assert sorted(files(folder)) == ["long.mkv", "short.mkv"]


def test_a_piece_that_cannot_be_looked_at_leaves_its_frames_to_the_last_pass(
    folder: OutputFolder, tmp_path: Path
) -> None:
    clip = write_lossless(tmp_path / "long.mkv", noise(50))
    folder.manifest.begin([Found("long.mkv", str(clip), 100, "m")], "key", overwrite=False)
    folder.manifest.line_up({})
    crew = FunctionCrew(lambda worker, job: "killed" if job.piece and job.piece.start else write(worker, job))
    dispatch(folder, crew, chunk=1.0)
    assert len(crew.jobs) == 1 + 3 + 1
    assert crew.jobs[-1][1].piece is None
    assert folder.manifest.counts().done == 1
