"""What the published networks have to do on one H200, measured as `standin bench` measures it; other GPUs are measured,
and held to nothing."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmarks.limit import all_found, row_of
from benchmarks.rates import measure_rates
from engines.runtime import Device
from tests.detector_bundles import FACES, write_one_stage

# Seeded networks take about a minute each to make.
pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(3600)]

_ASKED = ("--seeded", "--precision", "fp16", "--batch", "8", "--persons", "4", "--size", "1920x1080")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where networks with random weights are kept, once they are made."""
    folder = tmp_path_factory.mktemp("home")
    # The one network that is not made with random weights.
    write_one_stage(folder / "bundles" / "centerface", FACES, name="centerface")
    return folder


@pytest.fixture(scope="module")
def measured(gpu: Device, home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both presets at full size with random weights, which are as fast: 4 persons in 1080p, and batches of 8."""
    pytest.importorskip("torch", reason="seeded networks are made with the extra export")
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "stream", "bench", *_ASKED, "--preset", "deepprivacy2,sg-gan", "--device", gpu]
    result = subprocess.run(
        [*command, "--json", str(folder / "b.json")],
        env=os.environ | {"STANDIN_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads((folder / "b.json").read_text())
    print(result.stdout)
    return found


def figures(measured: dict[str, Any], preset: str) -> dict[str, Any]:
    (found,) = (result for result in measured["results"] if result["case"]["preset"] == preset)
    assert found["reason"] is None
    made: dict[str, Any] = found["figures"]
    return made


def milliseconds(measured: dict[str, Any], preset: str, bundle: str) -> float:
    """Of one run of a generator with 8 crops that are on the GPU already, as tables of tracks are."""
    (engine,) = (
        engine
        for engine in figures(measured, preset)["engines"]
        if engine["bundle"] == bundle and engine["graph"].startswith("generator") and engine["batch"] == 8
    )
    return float(engine["on_device"]["median"])


def only_on_an_h200(measured: dict[str, Any]) -> None:
    if "H200" not in str(measured["machine"]["gpu"]):
        pytest.skip(f"the figure is for an H200, this is {measured['machine']['gpu']}")


def test_three_hundred_persons_a_second_with_deepprivacy2(measured: dict[str, Any]) -> None:
    took = milliseconds(measured, "deepprivacy2", "dp2-person-cse")
    only_on_an_h200(measured)
    assert 8 * 1000 / took >= 300


@pytest.mark.parametrize(
    ("presets", "precision", "size", "persons"),
    [(["starter"], "fp32", "640x360", 2), (["deepprivacy2", "sg-gan"], "fp16", "1920x1080", 4)],
    ids=["starter", "published"],
)
def test_the_time_over_the_floor_is_known(
    presets: list[str],
    precision: Literal["fp32", "fp16"],
    size: str,
    persons: int,
    gpu: Device,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if presets != ["starter"]:
        pytest.importorskip("torch", reason="seeded networks are made with the extra export")
    monkeypatch.setenv("STANDIN_HOME", str(home))
    arguments = argparse.Namespace(
        presets=presets,
        device=gpu,
        precision=precision,
        batches=[1, 8],
        size=size,
        persons=persons,
        threads=None,
        tf32=False,
    )
    rates = measure_rates(tmp_path, gpu, None, precision)
    rows = [row_of(found, rates) for found in all_found(arguments)]
    for row in rows:
        print(f"{row.bundle} {row.graph} x{row.batch}: {row.milliseconds:.2f} ms, {row.times_floor:.2f} floors")
    assert {row.graph.partition("_")[0] for row in rows} >= {"detector", "heads", "generator"}
    assert all(row.times_floor > 0.1 for row in rows)


def test_sg_gan_takes_little_longer_once_a_track_has_its_tables(measured: dict[str, Any]) -> None:
    first, other = (
        milliseconds(measured, *which) for which in (("deepprivacy2", "dp2-person-cse"), ("sg-gan", "sg-gan"))
    )
    only_on_an_h200(measured)
    assert other <= 1.2 * first


def test_thirty_frames_a_second_at_1080p_with_four_persons(measured: dict[str, Any]) -> None:
    found = figures(measured, "deepprivacy2")
    assert found["content"]["withheld"] == 0
    assert found["content"]["generated"] >= 4
    only_on_an_h200(measured)
    assert found["flat_out"]["rate"]["median"] >= 30
