from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from engines.bundle import write_bundle
from engines.errors import RuntimeUnavailableError
from engines.store import Store
from stream import doctor
from stream.check import Check
from stream.presets import PRESETS
from tests.detector_bundles import install_presets
from tests.engines.helpers import doubler, tiny_draft

if TYPE_CHECKING:
    from pathlib import Path


def by_name(checks: list[Check]) -> dict[str, Check]:
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found


def test_everything_is_looked_at(tmp_path: Path) -> None:
    found = by_name(doctor.collect(Store(tmp_path)))
    names = {"Python", "standin", "NumPy", "OpenCV", "PyAV", "ONNX Runtime", "NVIDIA GPU", "TensorRT", "GStreamer"}
    assert names | {"store", "bundle centerface", "encoder libx264"} <= set(found)
    assert "CPUExecutionProvider" in found["ONNX Runtime"].detail
    assert "FFmpeg" in found["PyAV"].detail
    assert found["bundle centerface"].status == "missing"
    assert found["bundle centerface"].todo == "standin engines pull centerface"
    for check in found.values():
        assert check.detail
        assert check.status == "ok" or check.todo


def test_encoders_are_opened_and_not_only_looked_up() -> None:
    found = by_name(doctor.check_encoders(["libx264", "ffv1", "no_such", "aac"]))
    assert found["encoder libx264"].status == "ok"
    assert found["encoder libx264"].needed
    assert found["encoder ffv1"].status == "ok"
    assert "does not have it" in found["encoder no_such"].detail
    assert found["encoder aac"].detail == "not a video encoder"


def test_a_probe_that_crashes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, sys; print('broken', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(doctor, "_ENCODER_PROBE", crash)
    check = doctor.check_encoders(["libx264"])[0]
    assert check.status == "missing"
    assert "broken" in check.detail
    assert doctor.exit_code([check]) == 1


def test_two_builds_of_onnx_runtime_are_a_warning() -> None:
    found = by_name(doctor.check_onnxruntime(lambda name: "1.20"))
    assert found["ONNX Runtime builds"].status == "warn"
    assert "uninstall both" in found["ONNX Runtime builds"].todo
    alone = by_name(doctor.check_onnxruntime(lambda name: "1" if name == "onnxruntime" else None))
    assert "ONNX Runtime builds" not in alone


def test_without_onnx_runtime_the_default_run_is_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RuntimeUnavailableError("not there; pip install it")

    monkeypatch.setattr(doctor, "import_onnxruntime", missing)
    checks = doctor.check_onnxruntime()
    assert doctor.exit_code(checks) == 1
    assert checks[0].todo == "not there; pip install it"


def test_a_gpu_is_reported_as_the_driver_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA X, 550.1, 24 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor.check_gpu()[0] == Check("NVIDIA GPU", "ok", "NVIDIA X, 550.1, 24 MiB")
    tool.write_text("#!/bin/sh\necho 'no devices were found' >&2; exit 6\n")
    assert doctor.check_gpu()[0].status == "missing"
    assert doctor.check_gpu()[0].detail == "no devices were found"


@pytest.mark.parametrize(
    ("probed", "found"),
    [
        ((0, "", ""), ("ok", "opens")),
        (
            (1, "", "Traceback:\nengines.errors.RuntimeUnavailableError: no GPU decodes\n"),
            ("missing", "no GPU decodes"),
        ),
        ((-1, "", "did not finish in 60 s"), ("missing", "did not finish in 60 s")),
    ],
)
def test_whether_a_gpu_decodes_is_tried(
    probed: tuple[int, str, str], found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [(0, "NVIDIA X, 550.1, 24 MiB\n", ""), probed]
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(doctor, "run_probe", lambda command: answers.pop(0))
    check = doctor.check_gpu()[1]
    assert (check.name, check.status, check.detail) == ("decoder of the GPU", *found)
    assert (check.status == "ok") == (check.todo == "")


def test_no_gpu_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = doctor.check_gpu()
    assert checks[0].status == "missing"
    assert "only needed for --device cuda" in checks[0].todo
    assert doctor.exit_code(checks) == 0


def test_the_store_shows_damaged_bundles(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bundle = write_bundle(store.path("centerface"), tiny_draft("centerface"), {"detector.onnx": doubler()})
    assert by_name(doctor.check_store(store))["bundle centerface"].status == "ok"
    bundle.file("detector.onnx").write_bytes(b"changed")
    check = by_name(doctor.check_store(store))["bundle centerface"]
    assert check.status == "warn"
    assert "detector.onnx" in check.detail


def test_a_store_that_does_not_exist_yet_is_judged_by_the_folder_above(tmp_path: Path) -> None:
    check = doctor.check_store(Store(tmp_path / "a" / "b"))[0]
    assert check.name == "store"
    assert "GB free" in check.detail
    (tmp_path / "file").write_bytes(b"")
    assert doctor.check_store(Store(tmp_path / "file" / "x"))[0].status == "warn"


def test_presets_say_what_they_lack_and_how_it_is_made(tmp_path: Path) -> None:
    checks = by_name(doctor.check_presets(Store(tmp_path)))
    assert set(checks) == {f"preset {name}" for name in PRESETS}
    lacking = checks["preset sg-gan"]
    assert (lacking.status, lacking.detail) == ("missing", "needs maskrcnn, cse, centerface, sg-gan")
    assert "standin export maskrcnn ..." in lacking.todo
    assert "standin engines pull centerface" in lacking.todo
    # Nobody needs them for the default run, which says itself what it lacks.
    assert doctor.exit_code(checks.values()) == 0
    install_presets(tmp_path)
    for name in ("deepprivacy2", "deepprivacy2-face", "sg-gan", "faces"):
        assert by_name(doctor.check_presets(Store(tmp_path)))[f"preset {name}"].status == "ok"


def test_what_comes_with_the_project_is_shown_and_what_it_lacks(tmp_path: Path) -> None:
    shipped = tmp_path / "package"
    ours = write_bundle(shipped / "starter-detector", tiny_draft(), {"detector.onnx": doubler()})
    store = Store(tmp_path / "store", built_in=shipped)
    checks = by_name([*doctor.check_store(store), *doctor.check_presets(store)])
    found = checks["bundle starter-detector"]
    assert (found.status, found.detail) == ("ok", f"built in and verified, {ours.path}")
    todo = "standin run ... --engine starter-generator=FOLDER"
    lacking = checks["bundle starter-generator"]
    assert (lacking.status, lacking.detail, lacking.todo) == ("missing", "not in this release", todo)
    preset = checks["preset starter"]
    assert (preset.status, preset.detail, preset.todo) == ("missing", "needs starter-generator", todo)
    write_bundle(shipped / "starter-generator", tiny_draft(), {"detector.onnx": doubler()})
    assert by_name(doctor.check_presets(store))["preset starter"].detail == "has starter-detector, starter-generator"
    write_bundle(store.path("centerface"), tiny_draft(), {"detector.onnx": doubler()})
    joined = by_name(doctor.check_presets(store))["preset starter"]
    assert joined.detail == "has starter-detector, starter-generator, centerface"
    ours.file("detector.onnx").write_bytes(b"changed")
    damaged = by_name(doctor.check_store(store))["bundle starter-detector"]
    assert damaged.status == "warn"
    assert "install Standin again" in damaged.detail


def rendered(checks: list[Check]) -> str:
    text = io.StringIO()
    doctor.render(checks, Console(file=text, width=120))
    return text.getvalue()


def test_the_table_ends_with_what_prevents_a_run() -> None:
    checks = [
        Check("a", "ok", "1.0"),
        Check("[b]", "missing", "gone [/x]", "get it", needed=True),
        Check("c", "missing", "no", "x"),
    ]
    text = rendered(checks)
    assert "gone [/x]" in text
    assert text.endswith("Standin cannot run here yet: [b].\n")
    assert doctor.exit_code(checks) == 1
    assert "Everything" in rendered(checks[::2])
    assert doctor.exit_code(checks[::2]) == 0


def test_the_command_prints_and_returns_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))
    assert doctor.doctor_command() == 0
    assert "libx264" in capsys.readouterr().out
