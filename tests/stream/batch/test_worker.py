"""What a worker does with a file: the very same as a run of that file alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import RuntimeFailedError
from engines.runtime_onnx import OnnxRuntime
from stream.anonymizer import Anonymizer
from stream.batch.chunks import Piece, split
from stream.batch.jobs import Job, Order, Outcome
from stream.batch.worker import Worker
from stream.config import RunSettings, make_settings
from stream.report import versions
from stream.run import run
from tests.command import FACE
from tests.detector_bundles import install_presets
from tests.fakes import install_bundle, noise, read_pictures, write_lossless
from tests.media import busy_pictures, write_clip
from tests.stream.batch.clips import blinking, write_groups

MakeWorker = Callable[..., Worker]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_presets(home)
    # In its place one that sees nobody in dark pictures, so that tracks are held and looked ahead.
    shutil.rmtree(home / "bundles" / "centerface")
    install_bundle(home, FACE, brighter_than=60.0)
    return home


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(home))


def settings(**values: Any) -> RunSettings:
    return make_settings(RunSettings, {"preset": "faces", "face": "mask", "codec": "ffv1"} | values)


def worker(given: RunSettings, **changes: Any) -> Worker:
    return Worker(replace(Order(given, 2, True, versions()["standin"]), **changes))


def job(at: Path, staging: Path, **changes: Any) -> Job:
    staging.mkdir(parents=True, exist_ok=True)
    return Job(f"day/{at.name}", str(at), str(staging), **changes)


def report(path: Path) -> tuple[Any, Any]:
    loaded = json.loads(path.read_text())
    return loaded["frames"], {key: value for key, value in loaded["summary"].items() if "seconds" not in key}


def same(one: Path, other: Path) -> bool:
    """Whether two lossless clips show the very same pictures."""
    return all(np.array_equal(a, b) for a, b in zip(read_pictures(one), read_pictures(other), strict=True))


def test_file_after_file_is_as_in_runs_of_its_own(tmp_path: Path) -> None:
    clips = [write_groups(tmp_path / f"{n}.mkv", blinking(8, 320, 180, seed=n)) for n in range(3)]
    given = settings(preset="deepprivacy2", face="realistic", person="realistic", seed=4)
    one = worker(given)
    assert one.open().error is None
    for clip in clips:
        outcome = one.work(job(clip, tmp_path / "staging" / clip.stem))
        assert (outcome.error, outcome.frames, outcome.withheld) == (None, 8, 0)
        alone = tmp_path / f"alone-{clip.name}"
        run(clip, alone, given.model_copy(update={"report": alone.with_suffix(".json")}))
        staged = tmp_path / "staging" / clip.stem
        assert same(staged / clip.name, alone)
        written, own = staged / f"{clip.name}.report.json", alone.with_suffix(".json")
        assert report(written) == report(own)
        settings_of = [json.loads(path.read_text())["settings"] | {"threads": None} for path in (written, own)]
        assert settings_of[0] == settings_of[1]
    one.close()


@pytest.mark.parametrize("values", [
    {"preset": "faces", "hold": 4, "lookahead": 3},
    {"preset": "deepprivacy2", "face": "realistic", "person": "realistic", "mask_frames": 4, "mask_margin": 0.05},
    {"preset": "sg-gan", "person": "realistic", "face": "mask"},
], ids=lambda values: str(values["preset"]))  # fmt: skip
def test_in_pieces_tracks_and_stand_ins_are_those_of_the_whole(tmp_path: Path, values: dict[str, Any]) -> None:
    clip = write_groups(tmp_path / "long.mkv", blinking(18, 320, 180))
    given = settings(seed=11, **values)
    pieces = split(clip, 0.4, given)
    assert len(pieces) == 2
    one = worker(given)
    parts = tuple(str(tmp_path / f"piece-{number}") for number in range(len(pieces)))
    looked = [
        one.work(job(clip, tmp_path / "staging", piece=piece, detections=(part,)))
        for piece, part in zip(pieces, parts, strict=True)
    ]
    assert sum(outcome.frames for outcome in looked) == 18
    assert one.work(job(clip, tmp_path / "chunked", detections=parts)).error is None
    one.close()
    whole = tmp_path / "whole.mkv"
    kept = {"report": whole.with_suffix(".json"), "detections": tmp_path / "whole.detections"}
    result = run(clip, whole, given.model_copy(update=kept))
    # None of these was looked at before; all of the others were.
    assert "detections of 0 frames were read" in "".join(result.notes)
    assert same(tmp_path / "chunked/long.mkv", whole)
    frames, summary = report(tmp_path / "chunked/long.mkv.report.json")
    assert (frames, summary) == report(whole.with_suffix(".json"))
    assert str(tmp_path) not in (tmp_path / "chunked/long.mkv.report.json").read_text()
    assert summary["tracks"] > 0


def test_in_pieces_all_is_covered_as_in_a_run_that_keeps_nothing(tmp_path: Path) -> None:
    clip = write_groups(tmp_path / "long.mkv", blinking(60))
    given = settings(hold=4, lookahead=3)
    one = worker(given)
    parts = tuple(str(tmp_path / f"piece-{number}") for number in range(3))
    # The last piece was not looked at.
    for piece, part in list(zip(split(clip, 0.8, given), parts, strict=True))[:2]:
        one.work(job(clip, tmp_path / "staging", piece=piece, detections=(part,)))
    one.work(job(clip, tmp_path / "chunked", detections=parts))
    one.work(job(clip, tmp_path / "whole"))
    one.close()
    assert same(tmp_path / "chunked/long.mkv", tmp_path / "whole/long.mkv")
    name = "long.mkv.report.json"
    assert report(tmp_path / "chunked" / name) == report(tmp_path / "whole" / name)


def test_a_known_input_is_not_done_again_and_another_is(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(3))
    one = worker(settings())
    content = one.work(job(clip, tmp_path / "first")).content
    again = one.work(job(clip, tmp_path / "second", known=content))
    assert again.same
    assert not list((tmp_path / "second").iterdir())
    write_lossless(clip, noise(3, seed=1))
    assert not one.work(job(clip, tmp_path / "third", known=content)).same
    one.close()


def failed(outcome: Outcome, staging: Path) -> str:
    assert outcome.error is not None
    assert not any(not path.name.startswith(".") for path in staging.iterdir())
    return outcome.error


def test_what_goes_wrong_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    staging = tmp_path / "out/.standin/staging/1"
    one = worker(settings(codec="nonsense"))
    clip = write_lossless(tmp_path / "a.mkv", noise(3))
    outcome = one.work(job(clip, staging))
    assert "nonsense" in failed(outcome, staging)
    assert outcome.usage
    (tmp_path / "text.mp4").write_text("no video")
    outcome = one.work(job(tmp_path / "text.mp4", staging))
    assert "cannot be opened as video" in failed(outcome, staging)
    assert not outcome.usage
    assert "No such file" in failed(one.work(job(tmp_path / "gone.mp4", staging)), staging)
    one.close()


@pytest.mark.parametrize(("after", "said"), [(0, "CUDA failure 700"), (12, "the GPU was lost")])
def test_a_worker_that_lost_its_gpu_is_used_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, said: str
) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(30))
    one = worker(settings())
    assert one.work(job(clip, tmp_path / "first")).error is None
    calls, real = [], OnnxRuntime._run

    def lost(runtime: OnnxRuntime, feeds: Any) -> Any:
        calls.append(1)
        if len(calls) <= after:
            return real(runtime, feeds)
        raise RuntimeFailedError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    monkeypatch.setattr(OnnxRuntime, "_run", lost)
    outcome = one.work(job(clip, tmp_path / "second"))
    assert outcome.worn
    assert said in str(outcome.error)
    one.close()


def test_errors_name_the_result_and_not_where_it_is_until_then(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(3))
    staging = tmp_path / "out/.standin/staging/1"
    bad = job(clip, staging)
    (staging / "a.mkv").write_text("in the way")
    one = worker(settings())
    error = one.work(bad).error
    one.close()
    assert error is not None
    assert str(tmp_path / "out/day/a.mkv") in error
    assert ".standin" not in error


def test_a_damaged_input_is_whole_up_to_there_and_said(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mkv", busy_pictures(60), options={"bf": "0"}, gop=10)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    one = worker(settings())
    outcome = one.work(job(clip, tmp_path / "staging"))
    one.close()
    assert outcome.error is None
    assert outcome.problem
    assert 0 < outcome.frames < 60
    assert len(read_pictures(tmp_path / "staging/a.mkv")) == outcome.frames


def test_an_input_that_changes_meanwhile_is_no_result(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(30))

    class Changing(Worker):
        def _beat(self, frames: int = 1) -> None:
            super()._beat(frames)
            if self.progress().frames == 5:
                clip.touch()

    changing = Changing(Order(settings(), 1, False, versions()["standin"]))
    error = changing.work(job(clip, tmp_path / "staging")).error
    changing.close()
    assert error == f"{clip} was changed while it was read"


def test_progress_tells_how_far_it_is(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(6))
    one = worker(settings())
    one.work(job(clip, tmp_path / "staging"))
    one.close()
    assert one.progress().frames == 6
    assert one.progress().name == "day/a.mkv"


def test_a_machine_that_does_not_see_the_output_is_at_fault_and_not_the_file(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(3))
    away = tmp_path / "out/.standin/staging/1"
    one = worker(settings())
    for bad in (Job("a.mkv", str(clip), str(away)), Job("a.mkv", str(clip), str(away), piece=Piece(None, 1.0))):
        outcome = one.work(bad)
        assert "does not see the folder" in str(outcome.error)
        # Somewhere else it may go well, and here nothing will.
        assert outcome.worn
        assert not outcome.usage
    one.close()
    unseen = worker(settings(), output=str(tmp_path / "out")).open()
    assert f"does not see the folder {tmp_path / 'out'}: is it mounted there?" in str(unseen.error)
    (tmp_path / "out/.standin").mkdir(parents=True)
    seeing = worker(settings(), output=str(tmp_path / "out"))
    assert seeing.open().error is None
    seeing.close()


def test_the_result_of_another_input_is_not_replaced(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(3))
    one = worker(settings())
    outcome = one.work(job(clip, tmp_path / "staging", made_of=("/monday/a.mkv", "another content")))
    assert outcome.error == "its result was made of /monday/a.mkv: give --base, another --output, or --overwrite"
    assert outcome.usage
    assert not list((tmp_path / "staging").iterdir())
    content = hashlib.sha256(clip.read_bytes()).hexdigest()
    assert one.work(job(clip, tmp_path / "staging", made_of=("/monday/a.mkv", content))).error is None
    one.close()


@pytest.mark.parametrize(("preset", "opened"), [("faces", 1), ("deepprivacy2", 2)])
def test_engines_stay_open_for_what_is_not_cut_and_has_no_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, opened: int
) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(3))
    opens = []
    open_it = Anonymizer.from_settings

    def counted(*arguments: Any, **options: Any) -> Anonymizer:
        opens.append(arguments)
        return open_it(*arguments, **options)

    monkeypatch.setattr(Anonymizer, "from_settings", counted)
    one = worker(settings(preset=preset))
    for number in range(2):
        assert one.work(job(clip, tmp_path / f"{number}", detections=())).error is None
    one.close()
    assert len(opens) == opened


def test_a_worker_that_cannot_begin_says_why() -> None:
    assert worker(settings(), version="0.0.0").open().exit_code == 2
    opened = worker(settings(device="cuda")).open()
    assert "cuda" in str(opened.error).lower()
    assert opened.exit_code == 1
