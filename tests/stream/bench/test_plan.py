from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engines.errors import SourceError
from stream.bench.plan import Plan, bench, bundle_names, check_plan, engines_of
from stream.bench.records import Case, Settings
from tests.command import ROOT
from tests.detector_bundles import install_presets
from tests.fakes import noise, write_lossless


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    install_presets(root)
    return root


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("secret-name") / "in.mkv", noise(10, 160, 120))


SHORT = Settings(seconds=0.1, runs=1, encode=True, threads=1)


def plan(clip: Path, **changes: Any) -> Plan:
    return Plan(presets=("faces",), video=clip, settings=SHORT).model_copy(update=changes)


def test_a_plan_is_every_combination_in_order() -> None:
    made = Plan(devices=("cpu", "cuda"), precisions=("fp32", "fp16"), persons=(None, 2))
    assert len(made.cases) == 8
    assert made.cases[0] == Case(preset="starter", device="cpu", precision="fp32")
    assert made.cases[-1] == Case(preset="starter", device="cuda", precision="fp16", persons=2)


def test_a_precision_is_measured_where_it_can_be_computed_alone() -> None:
    made = Plan(devices=("cpu", "openvino"), precisions=("fp32", "bf16"))
    assert [(case.device, case.precision) for case in made.cases] == [
        ("cpu", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "bf16"),
    ]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"precisions": ("bf16",)}, "--device openvino"),
        ({"persons": (101,)}, "persons"),
        ({"batches": (0,)}, "batch"),
        ({"batches": (1000,)}, "batch"),
        ({"settings": SHORT.model_copy(update={"tiles": 2}), "persons": (None, 3)}, "--tiles"),
        ({"size": (640, 360)}, "--size"),
        ({"size": (641, 360), "video": None}, "even"),
        ({"size": (64, 10_000), "video": None}, "even"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_runs(changes: dict[str, Any], part: str) -> None:
    assert part in (check_plan(plan(Path("a.mp4"), **changes)) or "")
    assert check_plan(plan(Path("a.mp4"))) is None


def test_random_weights_stand_for_a_presets_own_names_alone(tmp_path: Path) -> None:
    seeded = {name: tmp_path / name for name in ("dsfd", "dp2-face", "sg-gan")}
    made = Plan(presets=("deepprivacy2-face", "faces"), seeded=seeded, engine={"dsfd": tmp_path / "mine"})
    assert engines_of(made, "deepprivacy2-face") == {"dsfd": tmp_path / "mine", "dp2-face": tmp_path / "dp2-face"}
    assert set(engines_of(made, "faces")) == {"dsfd"}  # the user's, which the run then refuses
    assert bundle_names("sg-gan") == ("maskrcnn", "cse", "centerface", "sg-gan")


def test_cases_are_measured_one_by_one_and_those_that_cannot_be_have_a_reason(
    home: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    seen: list[str] = []
    made = plan(clip, devices=("cpu", "tensorrt"), persons=(2, 3))
    record = bench(made, on_case=lambda index, count, case: seen.append(f"{index} of {count}: {case}"))
    assert len(seen) == 4
    assert seen[0] == "0 of 4: faces, cpu, fp32, 2 persons"
    assert [result.case for result in record.results] == list(made.cases)
    first, second, *others = record.results
    assert first.figures is not None
    assert first.figures.content.faces == 2
    assert [run.graph for run in first.figures.engines] == ["detector"]
    # Engines by themselves do not know of persons.
    assert second.figures is not None
    assert second.figures.engines == ()
    assert second.figures.start_up.process > 0.1
    assert [result.figures for result in others] == [None] * 2
    assert all("Tensorrt" in (result.reason or "") for result in others)
    assert list(tmp_path.iterdir()) == []
    assert "secret-name" not in record.model_dump_json()
    assert str(clip.name) not in record.model_dump_json()


def test_a_process_that_dies_is_a_reason_and_not_an_end(
    home: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(home))
    instead_of_the_child(monkeypatch, tmp_path, "print('out of luck', file=sys.stderr, flush=True)\nos._exit(7)")
    (result,) = bench(plan(clip)).results
    assert result.reason == "the process that measured ended with 7: out of luck"


def instead_of_the_child(monkeypatch: pytest.MonkeyPatch, folder: Path, lines: str) -> None:
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    (folder / "sitecustomize.py").write_text(f"import os, sys\nif 'stream.bench.child' in sys.orig_argv:\n{body}")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_process_that_does_not_end_is_ended(clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    instead_of_the_child(
        monkeypatch, tmp_path, "import time\nprint('asleep', file=sys.stderr, flush=True)\ntime.sleep(60)"
    )
    monkeypatch.setattr("stream.bench.plan._PATIENCE", 1.6)
    began = time.monotonic()
    (result,) = bench(plan(clip)).results
    assert time.monotonic() - began < 30
    assert result.reason == "the process that measured did not end within 2 s: asleep"


@pytest.mark.parametrize(("given", "taken"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST", "FASTEST_FIRST")])
def test_cuda_counts_gpus_as_the_driver_does_unless_somebody_wants_it_otherwise(
    clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str | None, taken: str
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", given)
    lines = "print(os.environ['CUDA_DEVICE_ORDER'], file=sys.stderr, flush=True)\nos._exit(3)"
    instead_of_the_child(monkeypatch, tmp_path, lines)
    (result,) = bench(plan(clip)).results
    assert result.reason == f"the process that measured ended with 3: {taken}"


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(SourceError):
        bench(plan(tmp_path / "a.mp4"))


#: A shell that starts tests in the background has Ctrl-C ignored, and whoever it starts as well.
SCRIPT = """
import signal, sys
from pathlib import Path
from stream.bench.plan import Plan, bench
from stream.bench.records import Settings
signal.signal(signal.SIGINT, signal.default_int_handler)
settings = Settings(seconds=60, runs=1, encode=True, threads=1)
bench(Plan(presets=("faces",), persons=(2,), video=Path(sys.argv[1]), settings=settings))
"""


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def threads(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def waited(condition: Any) -> Any:
    end = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_goes_on_when_it_is_ended(home: Path, clip: Path, tmp_path: Path, number: signal.Signals) -> None:
    environment = os.environ | {"STANDIN_HOME": str(home), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT, str(clip)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        (child,) = waited(lambda: children(process.pid))
        # It opens engines by now, so that the kernel knows what to do.
        waited(lambda: threads(child) > 4)
        # What was put into the detectors' answers leaves who is there raw.
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        process.send_signal(number)
        process.wait(10)
        waited(lambda: not alive(child))
    if number == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
