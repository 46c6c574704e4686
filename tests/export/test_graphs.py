from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from export import graphs
from export.graphs import EXAMPLES, GraphPlan, random_inputs, tensors
from export.models.folded import fold
from export.models.tables import TableMapping, TableModulation
from export.models.unet import StyleUnet
from tests.export.networks import seeded
from tests.export.tiny import body_network, face_network

halves = pytest.mark.parametrize("half", [False, True])


def unet_plan(*, embedding_channels: int = 0, half: bool = False) -> GraphPlan:
    network = face_network()
    if embedding_channels:
        network = seeded(StyleUnet(dataclasses.replace(network.spec, embedding_channels=embedding_channels)))
    example = random_inputs(network.spec.image_size, network.spec.z_channels, embedding_channels, 0)
    example["w"] = network.style_net(torch.from_numpy(example["z"])).detach().numpy()
    return graphs.unet_generator(fold(network), example, half=half)


def surface_plans(*, half: bool = False) -> tuple[GraphPlan, GraphPlan]:
    """Mapping and generator."""
    network = body_network()
    spec = network.spec
    example = random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, spec.vertices)
    mapping = TableMapping(network)
    made = [mapping(torch.from_numpy(example["z"][i : i + 1]), torch.ones(1)) for i in range(EXAMPLES)]
    example |= {f"table_{i}": np.stack([t[i].detach().numpy() for t in made]) for i in range(len(made[0]))}
    plan = graphs.surface_mapping(mapping, spec.vertices, example)
    modulation = TableModulation(network)
    return plan, graphs.surface_generator(fold(network), modulation, example, half=half)


def declared(plan: GraphPlan) -> dict[str, tuple[str, tuple[Any, ...]]]:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in (*plan.inputs, *plan.outputs)}


def assert_computes(plan: GraphPlan) -> None:
    """The module takes the example in the declared order, and gives what is declared."""
    for tensor in plan.inputs:
        assert plan.example[tensor.name].dtype == np.dtype(tensor.dtype)
        assert fits(plan.example[tensor.name].shape, tensor.shape)
    with torch.no_grad():
        made = plan.module(*tensors(plan.example, *(tensor.name for tensor in plan.inputs)))
    made = made if isinstance(made, tuple) else (made,)
    for values, tensor in zip(made, plan.outputs, strict=True):
        assert values.numpy().dtype == np.dtype(tensor.dtype)
        assert fits(values.shape, tensor.shape)
        assert values.isfinite().all()


def fits(found: tuple[int, ...], shape: tuple[Any, ...]) -> bool:
    return tuple(found) == tuple(EXAMPLES if isinstance(side, str) else side for side in shape)


def test_the_mapping_of_a_unet_takes_z_and_gives_w() -> None:
    network = face_network()
    plan = graphs.unet_mapping(network.style_net, random_inputs((16, 16), 8, 0, 0))
    assert (plan.key, plan.file) == ("mapping", "mapping.onnx")
    assert declared(plan) == {"z": ("float32", ("N", 8)), "w": ("float32", ("N", 6))}
    assert_computes(plan)


@halves
def test_a_unet_has_the_names_that_others_feed(half: bool) -> None:
    plan = unet_plan(half=half)
    key = "generator_fp16" if half else "generator"
    assert (plan.key, plan.file, plan.half) == (key, f"{key}.onnx", half)
    assert declared(plan) == {
        "image": ("float32", ("N", 3, 16, 16)),
        "mask": ("float32", ("N", 1, 16, 16)),
        "w": ("float32", ("N", 6)),
        "output": ("float32", ("N", 3, 16, 16)),
    }
    assert_computes(plan)


def test_a_unet_with_a_surface_also_takes_its_embedding() -> None:
    plan = unet_plan(embedding_channels=16)
    assert [tensor.name for tensor in plan.inputs] == ["image", "mask", "embedding", "embedding_mask", "w"]
    assert declared(plan)["embedding"] == ("float32", ("N", 16, 16, 16))
    assert declared(plan)["embedding_mask"] == ("float32", ("N", 1, 16, 16))
    assert_computes(plan)


def test_the_mapping_of_a_surface_gives_tables_of_one_person() -> None:
    plan, _ = surface_plans()
    assert declared(plan) == {
        "z": ("float32", (1, 8)),
        "truncation": ("float32", (1,)),
        # A row for each of 12 vertices, for known and for border pixels.
        "table_0": ("float32", (14, 6)),
    }
    assert_computes(plan)


@halves
def test_the_generator_of_a_surface_takes_stacked_tables_in_its_own_precision(half: bool) -> None:
    _, plan = surface_plans(half=half)
    found = declared(plan)
    assert [tensor.name for tensor in plan.inputs] == ["image", "mask", "embedding", "vertices", "slot", "table_0"]
    assert found["vertices"] == ("int64", ("N", 16, 16))
    assert found["slot"] == ("int64", ("N",))
    assert found["table_0"] == ("float16" if half else "float32", ("S", 14, 6))
    assert found["output"] == ("float32", ("N", 3, 16, 16))
    assert_computes(plan)


def test_a_plan_holds_no_more_of_the_example_than_it_takes() -> None:
    _, plan = surface_plans()
    assert list(plan.example) == [tensor.name for tensor in plan.inputs]


def test_random_persons_have_a_body_a_border_and_known_pixels() -> None:
    made = random_inputs((16, 12), 8, 4, 5)
    mask, body, border = made["mask"], made["embedding_mask"], made["border"]
    assert np.array_equal(mask + body + border, np.ones((EXAMPLES, 1, 16, 12)))
    assert min(part.sum() for part in (mask, body, border)) > 0
    vertices = made["vertices"][:, None]
    assert (vertices[mask > 0] == 5).all()
    assert (vertices[border > 0] == 6).all()
    assert set(vertices[body > 0]) == set(range(5))
    norms = np.linalg.norm(made["embedding"], axis=1, keepdims=True)
    assert np.allclose(norms, body, atol=1e-6)
    # The second person's tables come first: a graph that ignored the slot would be noticed.
    assert made["slot"].tolist() == [1, 0]


def test_random_persons_differ_and_are_repeated_by_their_seed() -> None:
    first, again, other = (random_inputs((16, 12), 8, 4, 5, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for name in ("image", "z", "embedding"):
        assert not np.array_equal(first[name], other[name])
        assert not np.array_equal(first[name][0], first[name][1])


def test_what_a_network_does_not_know_is_not_drawn() -> None:
    assert set(random_inputs((16, 12), 8, 0, 0)) == {"image", "mask", "z", "embedding_mask", "border", "slot"}


def test_tensors_come_in_the_order_of_their_names() -> None:
    arrays = {"a": np.zeros(1), "b": np.ones(2)}
    assert [len(tensor) for tensor in tensors(arrays, "b", "a")] == [2, 1]
