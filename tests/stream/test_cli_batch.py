"""`standin batch` as its user meets it: exit codes, one clear line for each trouble, signals, and calls that go on."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image as Pillow
from rich.console import Console

from stream.batch.batch import Ended
from stream.batch.folder import OutputFolder
from stream.batch.jobs import Progress
from stream.batch.manifest import Counts
from stream.cli_batch import _NOT_FOR_FILES, _Bars, _show, batch_command
from stream.config import RunSettings
from tests.command import FACE, ROOT, Standin
from tests.fakes import install_bundle, noise, read_pictures, write_lossless

OPTIONS = ("--preset", "faces", "--face", "mask", "--margin", 0, "--codec", "ffv1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_bundle(home, FACE)
    return home


@pytest.fixture(autouse=True)
def _home(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(store))


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """Two clips and an image, and what else lies there."""
    folder = tmp_path / "day"
    (folder / "a").mkdir(parents=True)
    write_lossless(folder / "a/1.mkv", noise(30))
    write_lossless(folder / "a/2.mkv", noise(20, seed=1))
    (folder / "a/1.srt").write_text("words")
    Pillow.fromarray(noise(1)[0]).save(folder / "still.png")
    return folder


def results(output: Path) -> list[str]:
    """Everything that has a final name."""
    found = (path.relative_to(output) for path in output.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".standin")


def test_every_setting_of_a_run_is_an_option_or_has_a_reason_not_to_be() -> None:
    names = set(batch_command.__signature__.parameters)  # type: ignore[attr-defined]
    assert set(RunSettings.model_fields) <= names | _NOT_FOR_FILES
    assert not names - {"report"} & _NOT_FOR_FILES


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.mp4"], 2, "no such file or folder: missing.mp4"),
        (["empty"], 1, "empty: there is no video and no image (0 others left out)"),
        (["day", "--output", "day/out"], 2, "lies inside the input"),
        (["day/still.png", "--output", "day"], 2, "lies in the output folder"),
        (["day", "--output", "file"], 2, "file is a file; a folder is expected"),
        (["day/**/*", "--output", "day/out"], 2, "lies in what"),
        (["day", "other"], 2, "would both become still.png"),
        (["day", "--face", "realistic"], 1, "bundle 'dp2-face' is not installed"),
        (["day", "--preset", "facs"], 2, "unknown preset 'facs'"),
        (["day", "--regions", "missing.csv"], 2, "missing.csv"),
        (["day", "--address", "127.0.0.1:1"], 1, "nobody answers at --address 127.0.0.1:1"),
        (["day", "--address", "http://head"], 2, "--address is HOST:PORT"),
        (["day", "--cpus-per-worker", "4096"], 2, "--cpus-per-worker is 4096, and this machine has"),
        (["day", "--device", "cuda"], 2, "--device cuda needs --gpus-per-worker"),
        (["day", "--decoder", "cuda", "--decoding", "lenient"], 2, "--decoder cuda needs --gpus-per-worker"),
        (["day", "--ending", "mp4"], 2, "--ending mp4: expected an ending like .mp4"),
        (["day", "--ending", "."], 2, "--ending .: expected an ending like .mp4"),
        (["day", "--ending", ".m3u8"], 2, "--ending .m3u8: expected an ending like .mp4"),
        (["day", "--sidecar", "*.jpg"], 2, "--sidecar *.jpg: only texts are copied as they are"),
        (["day", "--when-lost", "slate"], 2, "No such option: --when-lost"),
        (["day", "--workers", "0"], 2, "--workers"),
        (["s3://key:secret@bucket/day"], 2, "s3://***@bucket/day holds a user, a password or a query"),
    ],
)
def test_wrong_use_is_one_line(
    standin: Standin,
    day: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    Pillow.fromarray(noise(1)[0]).save(tmp_path / "other/still.png")
    output = [] if "--output" in arguments else ["--output", "out"]
    preset = [] if "--preset" in arguments else ["--preset", "faces"]
    ended = standin("batch", "-q", *arguments, *output, *preset)
    assert ended.code == code, ended.err
    assert message in ended.line()
    assert not (day / "out").exists()
    assert results(day) == ["a/1.mkv", "a/1.srt", "a/2.mkv", "still.png"]


@pytest.mark.parametrize("line", ['segment = "10min"', 'report = "r.json"', 'contact-sheet = "c.png"', "threads = 2"])
def test_settings_that_mean_nothing_for_files_are_named(standin: Standin, day: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "c.toml").write_text(f"margin = 0\n{line}\n")
    ended = standin("batch", day, "--output", tmp_path / "out", "--config", tmp_path / "c.toml", "--preset", "faces")
    name = line.split()[0].replace("-", "_")
    assert ended.line() == f"`{name}` in {tmp_path / 'c.toml'} means nothing for standin batch"
    assert ended.code == 2


def counts(**values: int) -> Counts:
    return Counts(**{name: values.get(name, 0) for name in Counts.__slots__})


def test_the_first_line_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    _Bars(Console(stderr=True)).plan(counts(total=16, waiting=9, kept=3, failed=3, incomplete=1))
    assert capsys.readouterr().err == "9 of 16 files to do, 3 are done already, 4 cannot be done\n"


def test_names_do_nothing_to_the_terminal(
    standin: Standin, day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _Bars(Console(stderr=True)).end("a\n\x1b[2J.mp4", None)
    assert capsys.readouterr().err == "1 of 0: a\\x0a\\x1b[2J.mp4\n"
    bars = _Bars(Console(stderr=True, force_terminal=True, width=200))
    bars.dispatcher = SimpleNamespace(under_way={1: Progress("a\n\x1b[2J.mp4", 1, 2)})  # type: ignore[assignment]
    with bars:
        bars.look()
    assert "a\\x0a\\x1b[2J.mp4" in capsys.readouterr().err
    (day / "a/b\nstandin: all is well\x1b.mp4").symlink_to(tmp_path / "nowhere")
    ended = standin("batch", day, "--output", tmp_path / "out\x1b", "--dry-run", *OPTIONS)
    assert ended.code == 1
    assert ended.line() == r"a/b\x0astandin: all is well\x1b.mp4: it cannot be read: No such file or directory"
    assert "\x1b" not in ended.out


def test_the_summary_names_files_with_withheld_frames(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(stderr=True, width=200)
    grey = [("a\x1b.mp4", 7), ("[b].mp4", 2)]
    _show(console, Ended(counts(total=9, done=9, withheld=12, grey=5), [], grey, None, 0), Path("out\x1b"))
    said = capsys.readouterr().err
    assert "12 frames are flat grey; the reports say why" in said
    assert r"a\x1b.mp4 (7), [b].mp4 (2), and 3 more" in said
    assert r"out\x1b" in said
    assert "\x1b" not in said
    _show(console, Ended(counts(total=2, done=2, withheld=9, grey=2), [], grey, None, 0), Path("out"))
    assert "more" not in capsys.readouterr().err


def test_two_batches_on_one_folder(standin: Standin, day: Path, tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out"):
        ended = standin("batch", day, "--output", tmp_path / "out", "-q")
    assert ended.code == 1
    assert "another batch is writing into" in ended.line()


def test_a_dry_run_says_what_and_how_long_and_writes_nothing(standin: Standin, day: Path, tmp_path: Path) -> None:
    ended = standin("batch", day, "--output", tmp_path / "out", "--dry-run", *OPTIONS)
    assert ended.code == 0, ended.err
    assert "3, 1 others left out" in ended.out
    assert "3, about 51 frames" in ended.out
    assert "frames per second" in ended.out
    assert not (tmp_path / "out").exists()


@contextmanager
def batch(day: Path, output: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "stream", "batch", day, "--output", output, *OPTIONS, "--attempts", 2, *options]
    with subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def exposed(marker: str) -> list[str]:
    """Sockets of processes with this in their environment that listen on more than this machine's own address."""
    owned = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                owned |= {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:
            continue
    assert owned
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    listening = [line for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in owned]
    assert listening, "Ray listens somewhere"
    return [line[1] for line in listening if not line[1].partition(":")[0].endswith("0100007F")]


@pytest.mark.slow
def test_it_is_interrupted_goes_on_and_names_what_failed(
    day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin: Standin
) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    monkeypatch.setenv("MARKER", marker := f"marker-{tmp_path}")
    output, bad, chunks = tmp_path / "out", day / "a/poison.mp4", ("--chunk", 1)
    bad.write_text("this is no video\n" * 50)
    with batch(day, output, *chunks, "--workers", 1) as first:
        assert first.stderr is not None
        lines = iter(first.stderr)
        said = next(line for line in lines if line.startswith("1 of 4: "))
        # Stopped meanwhile: on a busy machine it would be through with all files before it is interrupted.
        os.killpg(first.pid, signal.SIGSTOP)
        reached = exposed(marker)
        os.killpg(first.pid, signal.SIGINT)
        os.killpg(first.pid, signal.SIGCONT)
        said += "".join(lines)
    assert reached == []
    assert first.returncode == 130, said
    assert "finishing the files that are under way" in said
    assert 0 < len([name for name in results(output) if not name.endswith(".json")]) < 3

    with batch(day, output, "--sidecar", "*.srt", *chunks, "--workers", 2) as second:
        _, said = second.communicate(timeout=120)
    assert second.returncode == 1, said
    assert "Traceback" not in said
    assert f"standin: a/poison.mp4: {bad} cannot be opened as video" in said
    assert "(2 attempts)" in said
    names = [name for name in results(output) if not name.endswith(".srt")]
    assert names == [f"{name}{tail}" for name in ("a/1.mkv", "a/2.mkv", "still.png") for tail in ("", ".report.json")]
    for name, seed in (("a/1.mkv", 0), ("a/2.mkv", 1)):
        pictures = read_pictures(output / name)
        assert all((picture[10:34, 20:40] == 0).all() for picture in pictures)
        assert (pictures[0][:10] == noise(1, seed=seed)[0][:10]).all()
    assert len(json.loads((output / "a/1.mkv.report.json").read_text())["frames"]) == 30
    assert not list((output / ".standin").glob("staging/*/*"))

    # Now there is nothing to do, and nothing is started for it.
    bad.unlink()
    monkeypatch.setattr("stream.batch.cluster._imported", lambda: pytest.fail("Ray is started"))
    ended = standin("batch", day, "--output", output, *OPTIONS, *chunks)
    assert ended.code == 0, ended.err
    assert "0 of 3 files to do, 3 are done already" in ended.err
