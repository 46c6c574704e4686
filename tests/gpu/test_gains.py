"""Each thing that is done for a GPU gains there what it is done for; `benchmarks/gpu_gains.py` gives the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu_gains
from engines.errors import RuntimeUnavailableError
from engines.plan_build import PlanBuilder
from engines.runtime import Device

# Plans take a minute and more to build.
pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def standin_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))


def test_recorded_runs_are_not_slower_than_others(gpu: Device, tmp_path: Path) -> None:
    del gpu
    try:
        PlanBuilder()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    rows = list(gpu_gains.plans(tmp_path / "plans", 200))
    print(rows)
    assert len(rows) == len(gpu_gains.GRAPHS)
    assert all(row["gain"] >= 0.95 for row in rows)
    # Hundreds of small operators: what a launch of each costs is what a recording saves.
    assert max(row["gain"] for row in rows) > 1.1


def test_the_gpus_encoder_is_faster_than_the_processors(gpu: Device) -> None:
    row = gpu_gains.encoders(gpu, 200)
    if row["gpu_encoder"] == row["cpu_encoder"]:
        pytest.skip(f"{gpu} has no encoder")
    print(row)
    assert row["gain"] > 1


def test_stages_work_side_by_side(gpu: Device) -> None:
    row = gpu_gains.side_by_side(gpu, 300)
    print(row)
    assert row["gain"] > 1.2


def test_joint_runs_of_several_clients_are_faster_than_single_ones(gpu: Device, tmp_path: Path) -> None:
    row = gpu_gains.sharing(tmp_path, gpu, 100)
    print(row)
    assert row["rows_per_run"] > 1.5
    assert row["gain"] > 1
