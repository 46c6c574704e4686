from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from engines.errors import BundleMissingError, UsageError
from engines.store import Store
from stream.bench.measure import Job, histogram, measure, nice, settings_of
from stream.bench.records import SHARES, Case, Figures, Settings
from stream.pipeline import STAGES
from tests.detector_bundles import install_presets
from tests.fakes import noise, write_lossless


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("home")
    install_presets(root)
    return root


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clip") / "in.mkv", noise(12, 160, 120))


def job(clip: Path, folder: Path, **changes: Any) -> Job:
    how = {name: changes.pop(name) for name in Settings.model_fields if name in changes}
    case = Case(preset=changes.pop("preset", "deepprivacy2"), device="cpu", precision=changes.pop("precision", "fp32"))
    known = Job(
        case=case.model_copy(update={"persons": changes.pop("persons", None)}),
        video=clip,
        answer=folder / "answer.json",
        settings=Settings.model_validate({"seconds": 0.2, "runs": 2, "encode": True, "threads": 1} | how),
        batches=(1, 2),
        started=time.monotonic(),
        parent=1,
    )
    return known.model_copy(update=changes)


@pytest.fixture(scope="module")
def crowd(home: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return measure(job(clip, tmp_path_factory.mktemp("scratch"), persons=3), Store(home))


def test_a_case_has_all_figures(crowd: Figures) -> None:
    flat = crowd.flat_out
    assert flat.rate.runs == 2
    assert 0 < flat.rate.lowest <= flat.rate.median <= flat.rate.highest
    assert set(flat.stages) == set(STAGES)
    for stage in flat.stages.values():
        assert 0 < stage.latency["p50"].median <= stage.latency["p99"].median
        assert 0 < stage.busy.median <= 1
    for latency in (flat.latency, crowd.paced.latency):
        assert tuple(latency) == SHARES
    assert {span.stage for span in flat.timeline} == set(STAGES)
    assert min(span.begin for span in flat.timeline) == 0
    assert crowd.paced.rate <= 25
    assert sum(crowd.paced.histogram.counts) >= 8
    assert crowd.memory.peak is not None
    assert crowd.memory.gpu is None
    assert crowd.start_up.total > 0


def test_a_frames_whole_way_is_longer_than_each_of_its_stages(crowd: Figures) -> None:
    parts = [stage.latency["p50"].median for stage in crowd.flat_out.stages.values()]
    assert crowd.flat_out.latency["p50"].median > max(parts)


def test_the_persons_of_a_case_are_in_every_frame_and_replaced(crowd: Figures) -> None:
    assert crowd.content.persons == 3
    assert crowd.content.generated >= 3
    assert crowd.content.withheld == 0


def test_engines_by_themselves_and_what_ran_them(crowd: Figures) -> None:
    graphs = {(run.bundle, run.graph, run.batch) for run in crowd.engines}
    assert {("maskrcnn", "detector", 1), ("maskrcnn", "heads", 3), ("tiny-unet", "generator", 2)} <= graphs
    assert set(crowd.providers.values()) == {"CPUExecutionProvider"}
    assert "tiny-unet generator" in crowd.providers
    assert {bundle.weights for bundle in crowd.bundles if bundle.name == "maskrcnn"} == {"tiny: code"}


def test_without_persons_the_engines_answers_count(home: Path, clip: Path, tmp_path: Path) -> None:
    found = measure(job(clip, tmp_path, preset="faces", encode=False, batches=()), Store(home))
    assert found.content.faces == 2
    assert found.content.persons == 0
    assert "encode" not in found.flat_out.stages
    assert found.engines == ()
    assert list(tmp_path.iterdir()) == []


def test_half_precision_without_a_generator_is_refused(home: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fp32"):
        measure(job(clip, tmp_path, preset="faces", precision="fp16"), Store(home))


def test_bundles_that_are_missing_are_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match="dsfd"):
        measure(job(clip, tmp_path, preset="deepprivacy2"), Store(tmp_path))


def test_settings_are_the_presets_where_nothing_is_said(clip: Path, tmp_path: Path) -> None:
    found = settings_of(job(clip, tmp_path, engine={"cse": tmp_path}, threads=None))
    assert found.detect_size == 1333
    assert found.detector_precision == "auto"
    assert found.threads is None
    assert found.engine == {"cse": tmp_path}


@pytest.mark.parametrize(("name", "value"), [("detector_precision", "fp32"), ("detect_size", 640), ("tiles", 3)])
def test_detectors_are_asked_for_what_the_job_says(name: str, value: object, clip: Path, tmp_path: Path) -> None:
    assert getattr(settings_of(job(clip, tmp_path, **{name: value})), name) == value


@pytest.mark.parametrize(
    ("least", "expected"), [(1, 1), (1.01, 2), (3, 5), (0.06, 0.1), (70, 100), (200, 200), (0.2, 0.2)]
)
def test_widths_are_round(least: float, expected: float) -> None:
    assert nice(least) == pytest.approx(expected)


@pytest.mark.parametrize(
    "values",
    [
        [5.0],
        [0.0],
        [0.0, 0.0],
        [3.0, 3.0, 3.0],
        [1.0, 2.0, 100.0],
        [-1.0, 1.0],
        [1e-4, 2e-4],
        [0.1 * n for n in range(99)],
    ],
)
def test_a_histogram_holds_every_value_once(values: list[float]) -> None:
    found = histogram(values)
    assert sum(found.counts) == len(values)
    assert found.low <= min(values) + 1e-9
    assert found.low + found.width * len(found.counts) >= max(values) - 1e-9
    assert len(found.counts) <= 60
    assert found.counts[0] > 0
    assert found.counts[-1] > 0
