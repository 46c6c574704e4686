"""What `standin doctor` and `standin bench` say of a GPU that is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.errors import RuntimeUnavailableError
from engines.runtime import Device
from stream import doctor
from stream.bench.records import read_record
from stream.cli_bench import app
from stream.sources.hardware import check_decoder

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]


def test_doctor_names_it(gpu: Device) -> None:
    del gpu
    found = {check.name: check for check in doctor.check_gpu()}
    assert found["NVIDIA GPU"].status == "ok"
    # A GPU need not decode; what is said is what happens to who asks for it.
    try:
        check_decoder("cuda")
        decodes = True
    except RuntimeUnavailableError:
        decodes = False
    assert (found["decoder of the GPU"].status == "ok") == decodes


def test_bench_reads_its_name_memory_and_power(gpu: Device, tmp_path: Path) -> None:
    result = tmp_path / "bench.json"
    words = ["--preset", "starter", "--device", gpu, "--seconds", "5", "--runs", "1", "--json", str(result)]
    assert CliRunner().invoke(app, words).exit_code == 0
    record = read_record(result)
    assert record.machine.gpu
    ((_, figures),) = record.measured
    assert figures.memory.gpu is not None
    assert figures.memory.gpu_before is not None
    assert figures.memory.gpu > figures.memory.gpu_before
    assert figures.power.gpu is not None
    assert figures.power.gpu > 0
