"""One command makes the whole set; stopped on its way, it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export.starter import stages_detector, stages_generator, whole
from export.starter.__main__ import main
from export.starter.body import save_body
from export.starter.whole import SHARES
from tests.export.starter.bodies import tiny_body
from tests.export.starter.drawing import skip_without_drawing
from tests.export.starter.tiny_settings import DETECTOR, GENERATOR, settings

pytestmark = pytest.mark.usefixtures("one_thread")

_STAGES = [
    "body",
    "scenes",
    "held-out",
    "detector-small",
    "detector",
    "detector-bundle",
    "evaluate-detector",
    "portraits",
    "held-out-portraits",
    "crops-small",
    "crops",
    "held-out-crops",
    "generator-small",
    "generator",
    "generator-bundle",
    "evaluate-generator",
    "sheet",
]


def command(folder: Path, *more: str) -> list[str]:
    save_body(folder / "body.npz", tiny_body())
    words = ["--minutes", "0.1", "--device", "cpu", "--output", str(folder / "set"), "--size", "192x128"]
    words += ["--workers", "1", "--body", str(folder / "body.npz")]
    return [*words, *settings(*DETECTOR, of="detector."), *settings(*GENERATOR, of="generator."), *more]


def test_the_whole_set_is_made_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    skip_without_drawing()
    # Bundles take most of the time, and are made by the commands' test.
    bundles: list[Path] = []
    monkeypatch.setattr(stages_detector, "make_detector_bundle", lambda _, output, *__, **___: bundles.append(output))
    monkeypatch.setattr(stages_generator, "make_generator_bundle", lambda _, __, output, **___: bundles.append(output))
    made = stages_generator.train_a_generator

    def stopped(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages_generator, "train_a_generator", stopped)
    assert main(command(tmp_path)) == 130
    record = json.loads((tmp_path / "set" / "set.json").read_text())
    assert [name for name, stage in record["stages"].items() if stage["finished"]] == _STAGES[:-5]

    monkeypatch.setattr(stages_generator, "train_a_generator", made)
    assert main(command(tmp_path)) == 2
    assert "add --resume" in caplog.text
    assert main(command(tmp_path, "--resume", "--seed", "3")) == 2
    assert "was begun with seed 0, not 3" in caplog.text
    before = (tmp_path / "set" / "detector" / "checkpoint.pt").read_bytes()
    assert main(command(tmp_path, "--resume")) == 0
    assert (tmp_path / "set" / "detector" / "checkpoint.pt").read_bytes() == before

    record = json.loads((tmp_path / "set" / "set.json").read_text())
    assert list(record["stages"]) == _STAGES
    assert all(stage["finished"] for stage in record["stages"].values())
    assert record["stages"]["scenes"]["scenes"] >= 1
    assert record["stages"]["evaluate-detector"]["figures"]["scenes"] >= 1
    assert record["stages"]["evaluate-generator"]["figures"]["l1"] > 0
    assert record["command"].startswith("python -m export.starter --minutes 0.1")
    assert str(tmp_path) not in record["command"]
    assert record["machine"]["cores"] >= 1
    assert {"python", "torch", "numpy"} <= set(record["versions"])
    assert bundles == [tmp_path / "set" / "bundles" / name for name in ("starter-detector", "starter-generator")]
    assert (tmp_path / "set" / "sheet.png").exists()


def test_the_shares_are_no_more_than_there_is() -> None:
    assert 0.9 < sum(SHARES.values()) < 1
    assert all(share > 0 for share in SHARES.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "rate=3"], "is of no training"),
        (["--set", "detector.bach=3"], "there is no setting 'bach'"),
        (["--set", "generator.losses.r2=3"], "there is no setting 'losses.r2'"),
        (["--minutes", "0"], "is no time"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_made(
    words: list[str], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["--minutes", "1", "--output", str(tmp_path / "set"), *words]) == 2
    assert message in caplog.records[-1].getMessage()
    assert not (tmp_path / "set").exists()


def test_a_damaged_record_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set.json").write_text("[]")
    assert main(["--minutes", "1", "--output", str(tmp_path), "--resume"]) == 1
    assert "is no record of a set" in caplog.text


def test_the_record_says_what_made_it() -> None:
    found = whole.machine("cpu")
    assert found["gpu"] is None
    assert found["cores"] >= 1
