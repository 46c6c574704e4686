"""The generators' benchmark: both ways must give the same images, or their times mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.convolutions import Convolutions, count_macs
from benchmarks.generator_ways import Way, random_crops
from benchmarks.generators import HEAD, Settings, Turn, lines, measure, summarise, take_turns, whole_frames
from export.architecture import expected_tensors
from export.configs import configs
from export.seeded import published_spec, random_network
from tests.parity import parity_case


def model(
    *nodes: onnx.NodeProto, weights: Mapping[str, tuple[int, ...]], output: tuple[str | int, ...]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 4, 6, 10))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("test", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


@pytest.mark.parametrize(
    ("node", "weight", "output", "kind", "expected"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4), (8, 4, 3, 3), (8, 6, 10), "dense", 60 * 8 * 4 * 9),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]), (8, 4, 2, 2), (8, 3, 5), "dense", 15 * 8 * 4 * 4),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            (4, 5, 3, 3),
            (5, 13, 21),
            "dense",
            60 * 4 * 5 * 9,
        ),
        (
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 2, 2], group=4),
            (4, 1, 4, 4),
            (4, 6, 10),
            "depthwise",
            60 * 4 * 16,
        ),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1] * 4, group=4),
            (4, 1, 4, 4),
            (4, 12, 20),
            "depthwise",
            60 * 4 * 16,
        ),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (10, 7), (4, 6, 7), "products", 24 * 10 * 7),
    ],
)
def test_multiplications_are_counted_for_one_person(
    node: onnx.NodeProto, weight: tuple[int, ...], output: tuple[int, ...], kind: str, expected: int
) -> None:
    found = count_macs(model(node, weights={"w": weight}, output=("N", *output)))
    assert found.pop(kind) == pytest.approx(expected / 1e9)
    assert set(found.values()) == {0}


def test_a_layer_inside_a_graph_without_declared_shapes_counts_too() -> None:
    made = model(
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"]),
        weights={"w": (8, 4, 3, 3), "v": (2, 8, 1, 1)},
        output=("N", 2, 6, 10),
    )
    assert count_macs(made)["dense"] == pytest.approx((60 * 8 * 4 * 9 + 60 * 8 * 2) / 1e9)


def test_a_shape_that_nobody_knows_is_refused_rather_than_left_out() -> None:
    strange = helper.make_node("Strange", ["x"], ["a"], domain="test")
    layer = helper.make_node("Conv", ["a", "w"], ["y"], pads=[1] * 4)
    made = model(strange, layer, weights={"w": (8, 4, 3, 3)}, output=("N", 8, 6, 10))
    with pytest.raises(ValueError, match="not known"):
        count_macs(made)


def test_the_convolutions_give_a_rate_each_in_both_libraries() -> None:
    rates = Convolutions(2, [(8, 12, 10), (16, 6, 5)]).measure()
    assert list(rates) == [f"{name} {size}" for size in ("8x12x10", "16x6x5") for name in ("onnxruntime", "torch")]
    assert min(rates.values()) > 0


@pytest.mark.parametrize(
    ("name", "case", "options"),
    [
        ("dp2-person-cse", "dp2_cse_full", {}),
        ("sg-gan", "sggan_full", {}),
        ("dp2-person", "dp2_nocse_small", {"width": 8, "widest": 64}),
        ("dp2-face", "dp2_face_small", {"width": 8, "widest": 64}),
    ],
)
def test_the_networks_have_the_published_tensors(name: str, case: str, options: dict[str, int]) -> None:
    expected = expected_tensors(published_spec(configs()[name], **options))
    published = parity_case(case).shapes
    assert expected == {tensor: published[tensor] for tensor in expected}
    left = [tensor for tensor in published if tensor not in expected]
    assert all(tensor.endswith(("resample_filter", "w_centers")) for tensor in left)


def test_a_network_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    spec = published_spec(configs()["dp2-face"], width=4, widest=8)
    first, again, other = (random_network(spec, seed).state_dict()["from_rgb.weight"] for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_bodies_have_vertices_and_borders_have_none() -> None:
    spec = published_spec(configs()["sg-gan"], width=4, vertices=900)
    crops = random_crops(spec, 2)
    assert crops.body is not None
    assert crops.vertices is not None
    border = ~crops.body & ~crops.known
    assert 0.2 < crops.body.mean() < 0.6
    assert border.any()
    assert not (crops.body & crops.known).any()
    assert len(np.unique(crops.vertices[crops.body])) > 100


def test_every_batch_takes_a_turn_however_low_the_limit_and_small_ones_take_more() -> None:
    done: list[str] = []

    def way(name: str) -> Way:
        def run() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            done.append(name)
            return np.zeros((1, 3, 1, 1), np.float32)

        return Way(run, lambda: done.append(f"before {name}"))

    ways = {1: {"published": way("p1"), "ours": way("o1")}, 8: {"published": way("p8"), "ours": way("o8")}}
    turns = take_turns(ways, lambda: {"a convolution": 1.0}, rounds=3, limit=0)
    assert [turn.batch for turn in turns] == [1, 1, 1, 1, 8]
    assert done == ["before p1", "p1", "before o1", "o1"] * 4 + ["before p8", "p8", "before o8", "o8"]
    assert len(take_turns(ways, lambda: {"a convolution": 1.0}, rounds=2, limit=60)) == 10


def turns() -> Iterator[Turn]:
    # The machine is half as fast every second time: ratios within a turn do not see it.
    for slow, number in zip((1, 2, 1, 2), count()):
        extra = 0.1 if number == 2 else 0
        seconds = {"published": slow * 0.8, "cpu_first": slow * 0.5, "cpu_steady": slow * (0.4 + extra)}
        yield Turn(1, seconds, {"slower": 100 / slow, "faster": 200 / slow})
    yield Turn(4, {"published": 1.0, "cpu_first": 0.5, "cpu_steady": 0.25}, {"faster": 100})


def test_ratios_are_medians_within_turns_and_the_floor_is_the_best_rate() -> None:
    one, four = summarise(list(turns()), dense=60)
    assert (one["batch"], one["turns"], four["batch"], four["turns"]) == (1, 4, 4, 1)
    assert one["published_ms"] == pytest.approx(1200)
    assert (one["cpu_steady_best_ms"], one["floor_best_ms"]) == (400, 300)
    assert one["cpu_steady_times_published"] == pytest.approx(2.0)
    assert one["cpu_steady_times_floor"] == pytest.approx(0.4 / 0.3, abs=0.01)
    assert one["cpu_steady_times_floor_best"] == pytest.approx(0.4 / 0.3, abs=0.01)
    assert (four["floor_ms"], four["cpu_steady_times_floor"]) == (600, pytest.approx(0.42, abs=0.01))


def test_a_whole_frame_is_the_sum_of_generator_and_vertex_search() -> None:
    rows = [{"batch": 4, "published_ms": 3000.0, "cpu_steady_ms": 500.0}]
    (whole,) = whole_frames(rows, {"published_ms": 1000.0, "ours_ms": 12.0}, ["cpu"])
    assert whole == {"batch": 4, "published_ms": 4000, "cpu_steady_ms": 512, "cpu_steady_times_published": 7.81}


def test_the_table_has_a_line_for_each_batch_and_each_search() -> None:
    rows = summarise(list(turns()), dense=60)
    search = {"queries": "smooth", "pixels": 18_400, "published_ms": 900.0, "ours_ms": 9.0, "times_published": 100.0}
    part = {
        "generator": "sg-gan",
        "gmac": {"dense": 60.0},
        "track_bytes": {"fp32": 78_000_000, "fp16": 39_000_000},
        "rows": rows,
    }
    made = lines(
        {
            "generators": [part],
            "devices": ["cpu"],
            "vertex_search": [search],
            "with_vertex_search": whole_frames(rows, search, ["cpu"]),
        }
    )
    assert len(made) == 5
    assert {len(line) for line in made} == {len(HEAD)}
    assert [line[0].split("\n")[0] for line in made[:4]] == ["sg-gan"] * 2 + ["sg-gan and vertex search"] * 2
    cells = dict(zip(HEAD, made[0], strict=True))
    assert (cells["published ms"], cells["floor ms"], cells["steady x"]) == ("1200.0", "450.0", "2.0")
    assert cells["MB a track, fp32 / fp16"] == "78 / 39"
    assert "18400 pixels" in made[4][0]


@pytest.mark.parametrize(
    ("name", "batches", "numbers"),
    [
        pytest.param("dp2-person-cse", (1, 2), 512, marks=pytest.mark.slow),
        pytest.param("sg-gan", (2,), 602 * 512, marks=[pytest.mark.slow, pytest.mark.thorough]),
    ],
)
def test_a_small_generator_gives_the_same_images_both_ways(name: str, batches: tuple[int, ...], numbers: int) -> None:
    spec = published_spec(configs()[name], width=8, widest=64, vertices=600)
    settings = Settings(batches=batches, rounds=1, limit=0)
    found = measure(name, spec, Convolutions(2, [(8, 12, 10)]), settings)
    assert found["difference"] < 1e-3
    assert found["track_bytes"]["fp32"] >= 4 * numbers
    assert 0.5 < found["gmac"]["dense"] < 5
    assert [row["batch"] for row in found["rows"]] == list(batches)
    for row in found["rows"]:
        for way in ("published", "cpu_first", "cpu_steady", "cpu_engine"):
            assert row[f"{way}_ms"] >= row[f"{way}_best_ms"] > 0
