from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from engines.bundle import Bundle
from engines.errors import ExportError
from engines.manifest import Tensor
from export import written
from export.generators import Precision, export_generator
from export.graphs import GraphPlan
from export.models.folded import FoldedConv
from export.models.layers import Conv
from export.parity import LARGEST_ACTIVATION, TOLERANCES, ActivationRecord, measure_parity
from export.to_onnx import write_onnx
from tests.export.networks import seeded
from tests.export.tiny import BODY, FACE, body_checkpoint, cse_checkpoint, face_checkpoint, face_network

VALUES = np.array([[1, 4, 9], [0.25, 2, 3]], np.float32)
Values = NDArray[np.float32]


def plan_of(x: Values = VALUES, *, half: bool = False) -> GraphPlan:
    given, made = (Tensor(name=name, dtype="float32", shape=("N", 3), meaning="numbers") for name in ("x", "root"))
    return GraphPlan("generator", "generator.onnx", nn.Identity(), (given,), (made,), {"x": x}, half)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A graph that takes square roots."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "root"))
    graph = helper.make_graph([helper.make_node("Sqrt", ["x"], ["root"])], "roots", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "generator.onnx")
    return tmp_path / "generator.onnx"


def shifted(**by: float) -> dict[str, Any]:
    """Square roots, one of them moved."""
    made = np.sqrt(VALUES)
    made[0, 0] += by.get("one", 0)
    return {"root": made + by.get("all", 0)}


def test_what_was_compared_is_recorded(path: Path) -> None:
    (found,) = measure_parity(plan_of(), path, shifted(one=5e-4))
    assert (found.graph, found.output, found.measure, found.cases) == ("generator", "root", "largest", 2)
    assert found.measured == found.largest_difference == pytest.approx(5e-4, rel=1e-3)
    assert found.tolerance == TOLERANCES[False] == 1e-3


def test_a_single_value_beyond_the_tolerance_of_float32_fails(path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        measure_parity(plan_of(), path, shifted(one=2e-3))
    assert str(caught.value) == (
        "generator.onnx differs from the published network: root by 0.002, expected at most 0.001; nothing was written"
    )


def test_float16_is_measured_by_root_mean_square(path: Path) -> None:
    (found,) = measure_parity(plan_of(half=True), path, shifted(one=2e-2))
    assert found.measure == "rms"
    assert found.measured == pytest.approx(2e-2 / np.sqrt(6), rel=1e-3)
    assert found.largest_difference == pytest.approx(2e-2, rel=1e-3)
    with pytest.raises(ExportError, match=r"root by 0\.02, expected at most 0\.01"):
        measure_parity(plan_of(half=True), path, shifted(all=2e-2))


def test_the_tolerance_grows_with_the_deviation_of_the_output(path: Path) -> None:
    large = 400 * VALUES
    expected = np.sqrt(large)
    (found,) = measure_parity(plan_of(large), path, {"root": expected + 5e-3})
    assert found.tolerance == pytest.approx(1e-3 * expected.std())
    with pytest.raises(ExportError, match="expected at most"):
        measure_parity(plan_of(large), path, {"root": expected + 5e-2})


def test_the_tolerance_of_huge_outputs_is_finite(path: Path) -> None:
    alternating = np.where(np.arange(6).reshape(2, 3) % 2, 1e30, -1e30).astype(np.float32)
    with pytest.raises(ExportError, match=r"root by 1e\+30, expected at most 1e\+27"):
        measure_parity(plan_of(), path, {"root": alternating})


def test_an_output_that_is_not_finite_fails(path: Path) -> None:
    negative = VALUES.copy()
    negative[1, 2] = -1
    with pytest.raises(ExportError, match="root by nan, expected at most"):
        measure_parity(plan_of(negative), path, shifted())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_is_not_finite_itself_is_told_apart(path: Path, value: float) -> None:
    with pytest.raises(ExportError, match="the network's root is not finite, even before it is exported"):
        measure_parity(plan_of(), path, shifted(one=value))


def test_a_file_that_does_not_run_fails(path: Path) -> None:
    path.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"generator\.onnx does not run in ONNX Runtime"):
        measure_parity(plan_of(), path, shifted())


def test_a_graph_with_other_outputs_than_declared_fails(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].output[0] = model.graph.output[0].name = "square"
    onnx.save(model, path)
    with pytest.raises(ExportError, match="does not run in ONNX Runtime"):
        measure_parity(plan_of(), path, shifted())


def probed(*largest: float) -> ActivationRecord:
    """The record of a layer that gave out these numbers, one run each."""
    record, module = ActivationRecord(), nn.Module()
    record.watch("decoder.0", module)
    for value in largest:
        module.probe(  # type: ignore[operator]
            "output", torch.tensor([0.0, value])
        )
    return record


def test_the_largest_absolute_activation_of_each_layer_is_recorded() -> None:
    (found,) = probed(2, -7, 3).activations()
    assert (found.layer, found.largest) == ("decoder.0.output", 7)
    layer, record = FoldedConv(seeded(Conv(2, 2, norm="instance"))), ActivationRecord()
    record.watch("conv0", layer)
    layer(torch.ones(1, 2, 4, 4))
    assert [activation.layer for activation in record.activations()] == [
        "conv0.input", "conv0.convolution", "conv0.output",
    ]  # fmt: skip


@pytest.mark.parametrize("largest", [LARGEST_ACTIVATION * 1.001, -2 * LARGEST_ACTIVATION, np.inf, np.nan])
def test_activations_that_float16_could_not_hold_are_refused(largest: float) -> None:
    with pytest.raises(ExportError, match=r"layer decoder\.0\.output reaches .* export with --precision fp32"):
        probed(1, largest, 1).require_half()


def test_control_activations_up_to_the_bound_are_fine() -> None:
    probed(LARGEST_ACTIVATION, -LARGEST_ACTIVATION).require_half()
    ActivationRecord().require_half()


def export(folder: Path, precision: Precision = "fp32") -> Bundle:
    return export_generator("dp2-face", folder / "face.ckpt", folder / "b", config=FACE, precision=precision)


def test_a_graph_that_computes_something_else_is_a_failed_export_and_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perturbed(plan: GraphPlan, path: Path, opset: int) -> None:
        write_onnx(plan, path, opset)
        model = onnx.load(path)
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [6])
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        onnx.save(model, path)

    monkeypatch.setattr(written, "write_onnx", perturbed)
    face_checkpoint(tmp_path / "face.ckpt")
    with pytest.raises(ExportError, match=r"mapping\.onnx differs from the published network: w by 0\.01"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["face.ckpt"]


def test_large_activations_are_recorded_in_float32_and_refuse_float16(tmp_path: Path) -> None:
    weight = face_network().state_dict()["to_rgb.weight"]
    face_checkpoint(tmp_path / "face.ckpt", **{"to_rgb.weight": 1e5 * weight})
    refused: tuple[Precision, ...] = ("fp16", "both")
    for precision in refused:
        with pytest.raises(ExportError, match=r"layer to_rgb\.convolution reaches .* expected at most 30000"):
            export(tmp_path, precision)
        assert [path.name for path in tmp_path.iterdir()] == ["face.ckpt"]
    generation = export(tmp_path).manifest.generation
    assert generation is not None
    assert max(activation.largest for activation in generation.activations) > LARGEST_ACTIVATION


def test_a_product_of_small_factors_is_an_activation_too(tmp_path: Path) -> None:
    """Modulation and features fit into float16, their product does not; the convolution after it hides that again."""
    body_checkpoint(tmp_path / "body.ckpt", cse_checkpoint(tmp_path / "cse.pkl"))
    state = torch.load(tmp_path / "body.ckpt", weights_only=True)["EMA_generator"]
    state["style_net.dec_layers.0.mlp.bias"].fill_(2e4)
    state["decoder.0.conv0.weight"] *= 1e-4
    torch.save({"EMA_generator": state}, tmp_path / "body.ckpt")
    with pytest.raises(ExportError, match=r"layer decoder\.0\.conv0\.input reaches .* expected at most 30000"):
        export_generator("sg-gan", tmp_path / "body.ckpt", tmp_path / "b", config=BODY, precision="fp16")


@pytest.mark.parametrize(("up", "down"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_what_lies_between_a_convolution_and_its_filter_is_recorded(kernel: int, up: int, down: int) -> None:
    layer, record = FoldedConv(seeded(Conv(2, 2, kernel, up=up, down=down))), ActivationRecord()
    record.watch("conv0", layer)
    layer(torch.ones(1, 2, 8, 8))
    assert {activation.layer for activation in record.activations()} == {
        "conv0.input",
        "conv0.unfiltered" if up == 2 else "conv0.filtered",
        "conv0.convolution",
    }


def test_weights_too_large_for_float32_are_a_failed_export(tmp_path: Path) -> None:
    state = face_network().state_dict()
    names = ("style_net.fc0.weight", "decoder.0.conv0.affine.weight")
    face_checkpoint(tmp_path / "face.ckpt", **{name: torch.full_like(state[name], 3e38) for name in names})
    with pytest.raises(ExportError, match="the network's output is not finite"):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["face.ckpt"]
