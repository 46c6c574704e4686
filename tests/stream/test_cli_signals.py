"""`standin run` that is interrupted or killed: what is there is whole, or not under the final name."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import pytest
from rich.console import Console

from stream.signals import Signals
from tests.command import FACE, FLAT, ROOT, RUN
from tests.fakes import noise, read_pictures, shows_nothing, write_lossless

pytestmark = pytest.mark.usefixtures("at_home")

LENGTH = 3000


GUARDED = "from stream.cli import main; main()"
DIRECT = """
import stream.sinks.video
from tests.unguarded import DirectTarget
stream.sinks.video.Target = DirectTarget
"""
SLOW_TO_FINISH = """
import time
from stream.sinks.video import VideoSink
close = VideoSink.close
VideoSink.close = lambda sink: (time.sleep(20), close(sink))
"""
UNHANDLED = """
import contextlib, signal
import stream.cli_run
from types import SimpleNamespace
stream.cli_run.Signals = lambda *_, **__: contextlib.nullcontext(SimpleNamespace(begin=lambda stop: None))
signal.signal(signal.SIGINT, signal.SIG_DFL)
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.mkv"


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clips") / "long.mkv", noise(LENGTH))


@contextlib.contextmanager
def running(clip: Path, output: Path, *options: object, script: str = GUARDED) -> Iterator[subprocess.Popen[str]]:
    """A run that has begun to write and is far from its end."""
    command = [sys.executable, "-c", script, *RUN, str(clip), str(output), *map(str, options or FLAT)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        limit = time.monotonic() + 30
        while not any(path.stat().st_size > 20_000 for path in output.parent.iterdir()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def check_finished(code: int, out: Path) -> None:
    """A whole file, in which every picture is covered, and nothing beside it."""
    assert code == 130
    pictures = read_pictures(out)
    assert 1 <= len(pictures) < LENGTH
    assert all(shows_nothing(picture, FACE) for picture in pictures)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def check_killed(code: int, out: Path) -> None:
    """Nothing under the final name."""
    assert code == -signal.SIGKILL
    assert not out.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_file_up_to_there(number: signal.Signals, long_clip: Path, out: Path) -> None:
    with running(long_clip, out) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "finishing what is begun; press Ctrl-C again to give it up" in err
    check_finished(process.returncode, out)


def test_a_second_signal_gives_up_and_leaves_nothing(long_clip: Path, out: Path) -> None:
    with running(long_clip, out, script=SLOW_TO_FINISH + GUARDED) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "finishing" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "standin: interrupted; what was not finished is not there, or as it was\n"
    assert list(out.parent.iterdir()) == []


def test_a_killed_process_leaves_nothing_under_the_final_name(long_clip: Path, out: Path) -> None:
    with running(long_clip, out) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    check_killed(process.returncode, out)


def test_control_without_the_guard_a_killed_process_leaves_half_a_file(long_clip: Path, out: Path) -> None:
    with running(long_clip, out, script=DIRECT + GUARDED) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert 1 <= len(read_pictures(out)) < LENGTH
    with pytest.raises(AssertionError):
        check_killed(process.returncode, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_without_the_guard_a_signal_leaves_no_valid_file(
    number: signal.Signals, long_clip: Path, out: Path
) -> None:
    # MP4 cannot be read before it is finished.
    output = out.with_suffix(".mp4")
    with running(long_clip, output, "--crf", 1, script=DIRECT + UNHANDLED + GUARDED) as process:
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == -number
    assert output.stat().st_size > 20_000
    with pytest.raises(av.error.InvalidDataError):
        check_finished(130, output)
    with pytest.raises(AssertionError):
        check_finished(process.returncode, output)


def test_a_signal_before_there_is_a_file_gives_up(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals(Console(stderr=True), finishing="finishing", given_up="given up")
    with pytest.raises(KeyboardInterrupt), signals:
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err == "standin: given up\n"


def test_the_first_signal_finishes_the_second_gives_up(capsys: pytest.CaptureFixture[str]) -> None:
    stopped: list[bool] = []
    signals = Signals(Console(stderr=True), finishing="finishing", given_up="given up")

    def impatient() -> None:
        with signals:
            signals.begin(lambda: stopped.append(True))
            signal.raise_signal(signal.SIGINT)
            assert (stopped, signals.asked) == ([True], True)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        impatient()
    assert stopped == [True]
    assert capsys.readouterr().err == "finishing\nstandin: given up\n"
