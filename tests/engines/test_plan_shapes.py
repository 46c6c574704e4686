from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.errors import UsageError
from engines.manifest import Graph, Tensor
from engines.plan_shapes import Range, dimension_ranges, input_shapes, parse_range, parse_sizes
from engines.store import Store
from tests.detector_bundles import write_two_stage
from tests.engines.helpers import tiny_draft


@pytest.mark.parametrize(
    ("text", "found"), [("8", (8, 8, 8)), ("1,8", (1, 8, 8)), ("1,4,8", (1, 4, 8)), ("2, 2", (2, 2, 2))]
)
def test_ranges_are_read(text: str, found: tuple[int, int, int]) -> None:
    assert parse_range(text, "--batch") == found


@pytest.mark.parametrize("text", ["", "x", "1,", "0", "4,1", "1,2,3,4", "1,9,8", "-1", "1.5"])
def test_what_is_no_range_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--batch is"):
        parse_range(text, "--batch")


def test_sizes_are_read() -> None:
    assert parse_sizes("736x1280") == ((736, 736, 736), (1280, 1280, 1280))
    assert parse_sizes("256x256,736X1280,1280x1280") == ((256, 736, 1280), (256, 1280, 1280))
    for wrong in ("736", "736x", "736x1280x3", "736x1280,256x256"):
        with pytest.raises(UsageError):
            parse_sizes(wrong)


def shapes(bundle: Any, graph: str, **more: Any) -> dict[str, tuple[tuple[int, ...], ...]]:
    declared = bundle.graph(graph)
    found = input_shapes(declared, dimension_ranges(bundle.manifest, declared, **more))
    return {shape.name: (shape.least, shape.usual, shape.most) for shape in found}


def test_a_generator_takes_up_to_eight_crops_and_all_its_tables(tmp_path: Path) -> None:
    found = shapes(Store(tmp_path).open("starter-generator"), "generator")
    assert found["image"] == ((1, 3, 144, 80), (8, 3, 144, 80), (8, 3, 144, 80))
    assert found["slot"] == ((1,), (8,), (8,))
    assert found["table_0"] == ((1, 2050, 48), (256, 2050, 48), (256, 2050, 48))
    assert shapes(Store(tmp_path).open("starter-generator"), "mapping")["z"] == ((1, 64),) * 3


def test_a_detector_takes_the_pictures_that_its_manifest_tells_of(tmp_path: Path) -> None:
    found = shapes(Store(tmp_path).open("starter-detector"), "detector")
    assert found["image"] == ((1, 3, 32, 32), (1, 3, 384, 640), (1, 3, 640, 640))
    heads = shapes(Store(tmp_path).open("starter-detector"), "heads")
    assert heads["pixels"] == ((1, 19, 8, 8), (1, 19, 96, 160), (1, 19, 160, 160))
    assert heads["boxes"] == ((1, 4), (16, 4), (16, 4))


def test_levels_of_a_pyramid_are_parts_of_the_picture(tmp_path: Path) -> None:
    bundle = write_two_stage(tmp_path / "d", "cse", [(0.1, 0.1, 0.5, 0.9)])
    found = shapes(bundle, "heads", sizes=(Range(64, 64, 64), Range(128, 128, 128)), batch=Range(1, 2, 2))
    assert [found[f"p{level}"][2] for level in (2, 3, 4, 5)] == [
        (2, 3, 16, 32), (2, 3, 8, 16), (2, 3, 4, 8), (2, 3, 2, 4),
    ]  # fmt: skip


def test_what_is_asked_for_wins(tmp_path: Path) -> None:
    bundle = Store(tmp_path).open("starter-generator")
    found = shapes(bundle, "generator", batch=Range(1, 2, 4), given={"S": Range(1, 8, 8)})
    assert (found["slot"], found["table_0"][2]) == (((1,), (2,), (4,)), (8, 2050, 48))


def test_a_detector_without_a_word_on_sizes_takes_those_of_usual_video() -> None:
    draft = tiny_draft()
    x = Tensor(name="image", dtype="float32", shape=("N", 3, "h", "w"), meaning="")
    graph = draft.graphs["detector"].model_copy(update={"inputs": (x,)})
    found = dimension_ranges(draft, graph)  # type: ignore[arg-type]
    assert found == {"N": (1, 1, 1), "h": (32, 736, 1280), "w": (32, 1280, 1280)}


def test_a_dimension_that_nobody_knows_has_to_be_given() -> None:
    draft = tiny_draft()
    x = Tensor(name="x", dtype="float32", shape=("N", "depth"), meaning="")
    graph = Graph(file="a.onnx", inputs=(x,), outputs=(x,))
    with pytest.raises(UsageError, match="--shape depth=LEAST,USUAL,MOST"):
        dimension_ranges(draft, graph)  # type: ignore[arg-type]
    assert dimension_ranges(draft, graph, given={"depth": Range(1, 2, 3)})["depth"] == (1, 2, 3)  # type: ignore[arg-type]


def test_sizes_that_do_not_suit_the_network_are_usage_errors(tmp_path: Path) -> None:
    bundle = Store(tmp_path).open("starter-detector")
    with pytest.raises(UsageError, match="the side 100; starter-detector takes multiples of 32"):
        shapes(bundle, "detector", sizes=parse_sizes("100x128"))
