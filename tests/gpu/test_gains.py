"""Each thing that is done for a GPU gains there what it is done for; `benchmarks/gpu_gains.py` gives the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu_gains
from engines.runtime import Device

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(autouse=True)
def standin_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path))


def test_the_gpus_encoder_is_about_as_fast_as_all_cores_or_faster(gpu: Device) -> None:
    row = gpu_gains.encoders(gpu, 200)
    if row["gpu_encoder"] == row["cpu_encoder"]:
        pytest.skip(f"{gpu} has no encoder")
    print(row)
    # With many cores x264 comes near; it takes them from everything else then.
    assert row["gain"] > 0.8


def test_stages_side_by_side_are_faster_than_one_after_the_other(gpu: Device) -> None:
    row = gpu_gains.side_by_side(gpu, 300)
    print(row)
    assert row["gain"] > 1.2


def test_persons_of_several_frames_are_faster_in_one_run(gpu: Device) -> None:
    row = gpu_gains.frames_in_one_run(gpu, 200)
    print(row)
    assert row["rows_per_run"] > gpu_gains.PERSONS
    assert row["gain"] > 1


def test_joint_runs_of_several_clients_are_faster_than_single_ones(gpu: Device) -> None:
    row = gpu_gains.sharing(gpu, 200)
    print(row)
    assert row["rows_per_run"] > 1.5
    assert row["gain"] > 1
