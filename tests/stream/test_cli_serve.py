"""`standin serve` as its users call it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.command import Ended, child
from tests.stream.service.services import Serving

STANDIN = "from stream.__main__ import main; main()"
STREAM = '[streams.front]\ninput = "rtsp://me:${PASSWORD}@camera/1"\noutput = "front.mkv"\noverwrite = true\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PASSWORD", "geheim99")
    (tmp_path / "config.toml").write_text(STREAM)
    return tmp_path / "config.toml"


def serve(*arguments: object) -> Ended:
    return child(STANDIN, "serve", *arguments)


def test_a_config_is_checked_and_nothing_is_started(config: Path) -> None:
    ended = serve("--check", config)
    assert (ended.code, ended.out, ended.err) == (0, f"{config} is in order: front\n", "")
    assert [path.name for path in config.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("options", [[], ["--check"]])
def test_what_is_wrong_with_a_config_is_one_line(options: list[str], config: Path) -> None:
    config.write_text(STREAM + "hodl = 3\n")
    ended = serve(*options, config)
    assert ended.code == 2
    assert ended.line() == f"{config} [streams.front]: unknown key 'hodl': did you mean 'hold'?"


def test_a_warning_is_one_line_and_no_refusal(config: Path) -> None:
    config.write_text(STREAM + "[supervisor]\nsilence = 5\n")
    ended = serve("--check", config)
    assert ended.code == 0
    assert ended.out == f"{config} is in order: front\n"
    assert ended.err == (
        "[supervisor] silence = 5 is shorter than the deadline of front (30 s): workers that are only slow are killed; "
        "raise silence\n"
    )


def test_a_config_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ended = serve(tmp_path / "none.toml")
    assert ended.code == 2
    assert ended.line().startswith("cannot read the config file")


def test_a_status_page_that_others_could_change_is_refused(config: Path) -> None:
    pytest.importorskip("uvicorn")
    config.write_text(STREAM + '[status]\nhost = "0.0.0.0"\n')
    ended = serve("--check", config)
    assert ended.code == 2
    assert "without a token" in ended.line()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_service_ends_while_its_streams_are_still_beginning(number: signal.Signals, code: int, config: Path) -> None:
    config.write_text(STREAM.replace("rtsp://me:${PASSWORD}@camera/1", "http://127.0.0.1:9/x"))
    with Serving(config) as serving:
        # Its worker waits for a camera that is not there.
        serving.wait_for("front: ")
        assert serving.end(number) < 3
        assert serving.process.returncode == code
        assert not serving.count("Traceback")
