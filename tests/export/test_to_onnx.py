from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from engines.errors import ExportError
from engines.manifest import Graph
from engines.manifest import Tensor as Declared
from engines.runtime_onnx import OnnxRuntime
from export import graphs, to_onnx
from export.graphs import GraphPlan
from export.to_onnx import DEFAULT_OPSET, OPSETS, write_onnx
from tests.export.tiny import face_network


def mapping() -> GraphPlan:
    return graphs.unet_mapping(face_network().style_net, graphs.random_inputs((16, 16), 8, 0, 0))


def plan_of(module: nn.Module) -> GraphPlan:
    """A graph from x (N,3) to y (N,3)."""
    x, y = (Declared(name=name, dtype="float32", shape=("N", 3), meaning="numbers") for name in "xy")
    return GraphPlan("tiny", "tiny.onnx", module, (x,), (y,), {"x": np.ones((2, 3), np.float32)})


class Doubler(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize("opset", [DEFAULT_OPSET, 21, OPSETS[-1]])
def test_the_file_has_the_opset_that_was_asked_for(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "tiny.onnx"
    write_onnx(plan_of(Doubler()), path, opset)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]


def test_the_file_has_the_declared_names_and_takes_any_number_of_persons(tmp_path: Path) -> None:
    plan, path = mapping(), tmp_path / "mapping.onnx"
    write_onnx(plan, path)
    graph = Graph(file=plan.file, inputs=plan.inputs, outputs=plan.outputs)
    draw = np.random.default_rng(0)
    with OnnxRuntime(path, graph, device="cpu") as runtime:
        for persons in (1, 2, 5):
            z = draw.standard_normal((persons, 8)).astype(np.float32)
            found = runtime.run({"z": z})["w"]
            with torch.no_grad():
                assert np.allclose(found, plan.module(torch.from_numpy(z)).numpy(), atol=1e-6)


def places() -> list[bytes]:
    """What would tell whose machine it was made on."""
    return [text.encode() for text in (str(Path(to_onnx.__file__).parents[1]), str(Path.home()), sys.prefix, ".py")]


def test_nothing_in_the_file_says_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mapping.onnx"
    write_onnx(mapping(), path)
    assert not [place for place in places() if place in path.read_bytes()]
    assert onnx.load(path).producer_name == "standin"
    # Control: the exporter does write it.
    monkeypatch.setattr(to_onnx, "_strip", lambda model: None)
    write_onnx(mapping(), path)
    assert [place for place in places() if place in path.read_bytes()]


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_onnx(mapping(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


class Interrupted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyboardInterrupt


def test_a_module_that_cannot_be_traced_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"tiny\.onnx cannot be exported with opset 18") as caught:
        write_onnx(plan_of(Undecided()), tmp_path / "tiny.onnx")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert not os.listdir(tmp_path)


def test_an_interruption_stays_one(tmp_path: Path) -> None:
    """The exporter takes everything for a failure of the module."""
    with pytest.raises(KeyboardInterrupt):
        write_onnx(plan_of(Interrupted()), tmp_path / "tiny.onnx")
    assert not os.listdir(tmp_path)


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_onnx(plan_of(Doubler()), tmp_path / "missing" / "tiny.onnx")


def test_the_exporter_is_quiet_and_what_it_was_told_is_taken_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.getLogger("torch.onnx").level, list(warnings.filters)
    write_onnx(plan_of(Doubler()), tmp_path / "tiny.onnx")
    assert tuple(capfd.readouterr()) == ("", "")
    assert (logging.getLogger("torch.onnx").level, list(warnings.filters)) == before
