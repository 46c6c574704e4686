"""`standin run` as its user meets it: exit codes, one clear line when something is wrong, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from PIL import Image as Pillow

from tests.command import FACE, FLAT, ROOT, RUN, Standin
from tests.fakes import covered_share, install_bundle, noise, read_pictures, write_lossless
from tests.unguarded import anything_goes

pytestmark = pytest.mark.usefixtures("at_home")

COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clips") / "in.mkv", noise(COUNT))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.mkv"


def test_a_run_covers_the_face_and_says_what_it_did(standin: Standin, clip: Path, out: Path) -> None:
    ended = standin(*RUN, clip, out, *FLAT)
    assert ended.code == 0
    assert ended.out == ""
    assert f"{COUNT} (0 withheld)" in ended.err
    assert f"{COUNT} face in 1 tracks" in ended.err
    pictures = read_pictures(out)
    assert len(pictures) == COUNT
    for picture, raw in zip(pictures, noise(COUNT), strict=True):
        expected = raw.copy()
        expected[10:34, 20:40] = 0
        assert np.array_equal(picture, expected)


def test_quiet_says_nothing(standin: Standin, clip: Path, out: Path) -> None:
    ended = standin(*RUN, clip, out, "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_every_option_is_accepted(standin: Standin, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "regions.csv").write_text("x0,y0,x1,y1\n1,1,9,9\n")
    output, report, sheet = (tmp_path / name for name in ("out.mp4", "report.json", "sheet.png"))
    ended = standin(
        *RUN, clip, output, "--face", "pixelate", "--cells", 16, "--blur-radius", 0.3,
        "--mask-margin", 0.1, "--mask-frames", 2, "--join-faces", "--mask-colour", "#102030",
        "--shape", "ellipse", "--margin", 0.1, "--device", "cpu", "--threads", 1,
        "--hold", 3, "--lookahead", 2, "--detect-size", 64, "--tiles", 2, "--threshold", 0.5, "--deadline", 20,
        "--on-failure", "stop", "--regions", tmp_path / "regions.csv", "--codec", "libx264", "--crf", 30,
        "--speed", "ultrafast", "--audio", "drop", "--metadata", "strip", "--overwrite", "--report", report,
        "--contact-sheet", sheet, "--show-regions", "--start", 0.04, "--end", 0.4,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    loaded = json.loads(report.read_text())
    assert len(loaded["frames"]) == len(read_pictures(output)) == 9
    assert sheet.stat().st_size > 0


# --- wrong use: one line, no traceback, nothing written


@pytest.fixture
def things(tmp_path: Path, clip: Path) -> dict[str, Path]:
    """Inputs that are not what they should be."""
    folder = tmp_path / "folder"
    folder.mkdir()
    Pillow.fromarray(noise(1)[0]).save(folder / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    (tmp_path / "nothing.mp4").write_bytes(b"")
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in noise(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    (tmp_path / "truncated.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        assert isinstance(sound, AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
    with av.open(str(tmp_path / "frameless.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        container.start_encoding()
    names = ("folder", "empty", "text.mp4", "nothing.mp4", "truncated.mp4", "sound.mkv", "frameless.mkv", "missing.mp4")
    return {name: tmp_path / name for name in names} | {"clip": clip}


@pytest.mark.parametrize(
    ("name", "output", "options", "code", "message"),
    [
        ("missing.mp4", "out.mkv", (), 2, "no such file or folder: "),
        ("clip", "out.png", (), 2, "the input is a video, so the output 'out.png' must be one too"),
        ("clip", "folder", (), 2, "is a folder; a file is expected"),
        ("folder", "out.mp4", (), 2, "is a folder, so the output 'out.mp4' must be one too"),
        ("folder", "folder/inside", (), 2, "lie inside each other"),
        ("empty", "images", (), 1, "holds no image"),
        ("text.mp4", "out.mkv", (), 1, "cannot be opened as video"),
        ("nothing.mp4", "out.mkv", (), 1, "cannot be opened as video"),
        ("truncated.mp4", "out.mkv", (), 1, "cannot be opened as video"),
        ("sound.mkv", "out.mkv", (), 1, "has no video stream"),
        ("frameless.mkv", "out.mkv", (), 1, "cannot be opened as video"),
        ("clip", "out.mkv", ("--preset", "facs"), 2, "unknown preset 'facs': did you mean 'faces'?"),
        ("clip", "out.mkv", ("--face", "blurr"), 2, "'blurr' is not one of 'realistic', 'blur', 'pixelate', 'mask'"),
        ("clip", "out.mkv", ("--device", "gpu"), 2, "'gpu' is not one of 'cpu', 'openvino', 'cuda', 'tensorrt'"),
        ("clip", "out.mkv", ("--hold", "many"), 2, "--hold"),
        ("clip", "out.mkv", ("--hold", "-1"), 2, "hold: Input should be greater than or equal to 0, got -1"),
        ("clip", "out.mkv", ("--margin", "nan"), 2, "margin: "),
        ("clip", "out.mkv", ("--deadline", "inf"), 2, "deadline: "),
        ("clip", "out.mkv", ("--facee", "blur"), 2, "No such option: --facee"),
        ("clip", "out.mkv", ("--start", "3", "--end", "2"), 2, "end must be after start"),
        ("clip", "out.mkv", ("--start", "99"), 1, "no frame lies between"),
        ("folder", "images", ("--start", "1"), 2, "--start and --end are for video"),
        ("clip", "none/out.mkv", (), 2, "create "),
        ("clip", "out.nonsense", (), 2, "cannot tell the container from 'out.nonsense'"),
        ("clip", "out.mkv", ("--codec", "nonsense"), 2, "no encoder 'nonsense' here"),
        ("clip", "out.mkv", ("--codec", "aac"), 2, "is an encoder for audio"),
        ("clip", "out.mkv", ("--codec", "ffv1", "--crf", "20"), 2, "ffv1 has no quality scale"),
        ("clip", "out.mkv", ("--codec", "libx264", "--speed", "warp"), 2, "libx264 does not take"),
        ("clip", "out.mkv", ("--report", "none/r.json"), 2, "does not exist: create"),
        ("clip", "out.mkv", ("--report", "folder"), 2, "is a folder; a file is expected"),
        ("clip", "out.mkv", ("--report", "out.mkv"), 2, "--report and the output are the same file"),
        ("clip", "out.mkv", ("--contact-sheet", "sheet.jpg"), 2, "must end in .png"),
        ("clip", "out.mkv", ("--contact-sheet", "none/s.png"), 2, "does not exist: create"),
        ("clip", "out.mkv", ("--contact-sheet", "x.png", "--report", "x.png"), 2, "are the same file"),
        ("clip", "out.mkv", ("--regions", "none.csv"), 2, "cannot read the regions file"),
        ("clip", "out.mkv", ("--config", "none.toml"), 2, "cannot read the config file"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    name: str,
    output: str,
    options: tuple[str, ...],
    code: int,
    message: str,
    standin: Standin,
    things: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ended = standin(*RUN, things[name], output, *options)
    assert message in ended.line()
    assert ended.code == code
    assert sorted(tmp_path.rglob("*")) == before


def test_the_input_is_never_the_output(standin: Standin, clip: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.mkv"
    link.symlink_to(clip)
    before = clip.read_bytes()
    for output in (clip, link):
        ended = standin(*RUN, clip, output, "--overwrite")
        assert "is the input: it is never written" in ended.line()
        assert ended.code == 2
    ended = standin(*RUN, clip, tmp_path / "out.mkv", "--overwrite", "--report", clip)
    assert "is the input" in ended.line()
    assert clip.read_bytes() == before


def test_control_without_the_guard_the_input_is_overwritten(
    standin: Standin, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.mkv"
    own.write_bytes(clip.read_bytes())
    monkeypatch.setattr("stream.run_checks.check_target", anything_goes)
    assert standin(*RUN, own, own, "--overwrite", *FLAT).code == 0
    assert own.read_bytes() != clip.read_bytes()
    pictures = read_pictures(own)
    assert len(pictures) == COUNT
    assert all(covered_share(picture, FACE) == 1 for picture in pictures)


def test_an_existing_output_needs_overwrite(standin: Standin, clip: Path, out: Path) -> None:
    out.write_bytes(b"older")
    ended = standin(*RUN, clip, out)
    assert "exists; use --overwrite to replace it" in ended.line()
    assert out.read_bytes() == b"older"
    assert standin(*RUN, clip, out, "--overwrite").code == 0
    assert len(read_pictures(out)) == COUNT


def test_a_missing_argument_is_one_line(standin: Standin) -> None:
    ended = standin("run")
    assert "Missing argument 'INPUT'" in ended.line()
    assert ended.code == 2


def test_the_version_is_printed(standin: Standin) -> None:
    ended = standin("--version")
    assert ended.code == 0
    assert ended.out.startswith("standin ")


# --- configuration


def test_an_unknown_key_of_a_config_file_is_named_with_the_closest_one(
    standin: Standin, clip: Path, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text("detect-sise = 5\n")
    ended = standin(*RUN, clip, out, "--config", tmp_path / "c.toml")
    assert "c.toml: unknown setting 'detect_sise': did you mean 'detect_size'?" in ended.line()
    assert ended.code == 2


def test_options_win_over_the_config_file_and_the_file_over_defaults(
    standin: Standin, clip: Path, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text('hold = 3\nlookahead = 1\ncodec = "ffv1"\nreport = "r.json"\n')
    assert standin(*RUN, clip, out, "--config", tmp_path / "c.toml", "--hold", 7).code == 0
    used = json.loads((tmp_path / "r.json").read_text())["settings"]
    assert (used["hold"], used["lookahead"], used["codec"], used["margin"]) == (7, 1, "ffv1", 0.2)


# --- bundles and devices


def test_a_missing_bundle_names_the_command_that_fetches_it(
    standin: Standin, clip: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "empty"))
    ended = standin(*RUN, clip, out)
    assert "standin engines pull centerface" in ended.line()
    assert ended.code == 1
    assert not out.exists()


def test_a_changed_bundle_is_refused(
    standin: Standin, clip: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = install_bundle(tmp_path / "home", FACE)
    with (bundle.path / "detector.onnx").open("ab") as file:
        file.write(b"x")
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    ended = standin(*RUN, clip, out)
    assert "detector.onnx was changed" in ended.line()
    assert ended.code == 1
    assert not out.exists()


def test_a_bundle_of_a_newer_release_is_refused(
    standin: Standin, clip: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = install_bundle(tmp_path / "home", FACE).path / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    ended = standin(*RUN, clip, out)
    assert "schema version 99" in ended.line()
    assert "update standin" in ended.line()
    assert ended.code == 1


def test_a_device_that_is_not_there_is_an_error_that_lists_what_is(standin: Standin, clip: Path, out: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    ended = standin(*RUN, clip, out, "--device", "cuda")
    assert "device 'cuda' needs CUDAExecutionProvider" in ended.line()
    assert "CPUExecutionProvider" in ended.line()
    assert ended.code == 1


# --- frames that cannot be covered


def damage(path: Path, target: Path) -> Path:
    """A copy in which one packet is overwritten."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    start, size = packets[5]
    assert start is not None
    data[start + 40 : start + size] = bytes(255 - b for b in data[start + 40 : start + size])
    target.write_bytes(data)
    return target


def test_withheld_frames_make_the_exit_code_three(standin: Standin, clip: Path, out: Path, tmp_path: Path) -> None:
    ended = standin(*RUN, damage(clip, tmp_path / "damaged.mkv"), out, *FLAT)
    assert ended.code == 3
    assert f"{COUNT} (1 withheld)" in ended.err
    assert "withheld frames are flat grey: decoding failed (1)" in ended.err
    assert len(read_pictures(out)) == COUNT


def test_on_failure_stop_makes_the_exit_code_one(standin: Standin, clip: Path, out: Path, tmp_path: Path) -> None:
    ended = standin(*RUN, damage(clip, tmp_path / "damaged.mkv"), out, *FLAT, "--on-failure", "stop")
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "standin: stopped at 0.200 s: decoding failed"
    assert len(read_pictures(out)) == 5


# --- extreme sizes


def test_a_video_of_one_pixel_works(
    standin: Standin, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The usual face of these tests would lie outside such a picture, which no working detector says.
    install_bundle(tmp_path / "tiny-home", (0, 0, 20, 20))
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "tiny-home"))
    clip = write_lossless(tmp_path / "dot.mkv", noise(3, 1, 1))
    ended = standin(*RUN, clip, out, "--face", "mask", "--codec", "ffv1")
    assert ended.code == 0, ended.err
    assert [picture.shape for picture in read_pictures(out)] == [(1, 1, 3)] * 3
    assert standin(*RUN, clip, tmp_path / "default.mkv").code == 0


#: Not getrusage: its maximum counts what the process that started this one held.
MEASURED = """
from pathlib import Path
from stream.cli import main
try:
    main()
finally:
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def test_an_8k_video_works_in_bounded_memory(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "large.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        for level in range(2):
            frame = av.VideoFrame(7680, 4320, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([100 + level]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    output = tmp_path / "out.mp4"
    command = [sys.executable, "-c", MEASURED, *RUN, str(path), str(output), "--codec", "mpeg4", "--lookahead", "0"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr
    kilobytes = int(ended.stdout.split()[-1])
    assert kilobytes < 3_000_000
    with av.open(str(output)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (7680, 4320)
        assert sum(1 for _ in container.decode(video=0)) == 2


def test_signals_are_handled_as_before_after_a_run(standin: Standin, clip: Path, out: Path) -> None:
    before = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    assert standin(*RUN, clip, out).code == 0
    assert [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)] == before


def test_images_and_folders_are_covered(standin: Standin, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for index, name in enumerate(("a.png", "below/b.png")):
        Pillow.fromarray(noise(1, 64 + index, 48)[0]).save(folder / name)
    assert standin(*RUN, folder, tmp_path / "out", "--face", "mask").code == 0
    assert standin(*RUN, folder / "a.png", tmp_path / "a.png", "--face", "mask").code == 0
    for path in (tmp_path / "out" / "a.png", tmp_path / "out" / "below" / "b.png", tmp_path / "a.png"):
        assert covered_share(np.asarray(Pillow.open(path)), FACE) == 1


def test_the_environment_of_these_tests_is_not_the_users_own(store: Path) -> None:
    assert os.environ["STANDIN_HOME"] == str(store)


def test_a_command_that_runs_no_engines_imports_none() -> None:
    program = "import sys; from stream.cli import main\ntry:\n    main()\nfinally:\n    print(*sorted(sys.modules))"
    heavy = {"stream.anonymizer", "stream.batch.batch", "stream.tracker", "onnxruntime"}
    for arguments, imports in ((["--version"], False), (["engines", "list"], False), (["run", "--help"], True)):
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
        )
        loaded = set(ended.stdout.splitlines()[-1].split())
        assert "stream.cli" in loaded
        # Control: what runs does need the tracker.
        assert ("stream.tracker" in loaded) is imports
        # Each takes a part of a second and tens of megabytes of every process, and nothing in it is needed.
        assert not {"scipy", "torch", "httpx"} & loaded
        assert imports or not heavy & loaded


def test_every_command_is_in_the_help_and_what_is_nearly_one_is_suggested(standin: Standin) -> None:
    shown = standin("--help").out
    names = (
        "run",
        "serve",
        "batch",
        "verify",
        "generate",
        "export",
        "gst-path",
        "doctor",
        "engines",
        "bench",
        "evaluate",
    )
    places = [shown.index(f"\u2502 {name} ") for name in names]
    assert places == sorted(places)
    for name in names:
        ended = standin(name, "--help")
        assert ended.code == 0
        assert f"standin {name}" in ended.out
    ended = standin("runn", "a", "b")
    assert ended.code == 2
    assert "No such command 'runn'. Did you mean 'run'?" in ended.err
