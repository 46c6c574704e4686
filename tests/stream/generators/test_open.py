from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle, write_bundle
from engines.errors import BundleError, UsageError
from engines.runtime import Device, Runtime, open_runtime
from engines.runtime_joined import JoinedRuntime
from stream.generators import open as opening
from stream.generators.open import open_generator
from stream.generators.surface import SurfaceGenerator
from stream.generators.unet import UnetGenerator
from stream.latents import Latents
from stream.regions import Kind
from tests.engines.helpers import doubler, open_on_cpu, tiny_draft
from tests.generator_bundles import HEIGHT, WIDTH, Elsewhere, Watched, crops, write_surface, write_unet

Write = Callable[[Path], Bundle]


def test_the_architecture_says_which_class(tmp_path: Path) -> None:
    plain = open_generator(write_unet(tmp_path / "a", kind="face"))
    dense = open_generator(write_unet(tmp_path / "b", surface=True))
    surface = open_generator(write_surface(tmp_path / "c"))
    assert (type(plain), type(dense), type(surface)) == (UnetGenerator, UnetGenerator, SurfaceGenerator)
    assert (plain.kind, dense.kind, surface.kind) == (Kind.FACE, Kind.PERSON, Kind.PERSON)
    assert (plain.needs_surface, dense.needs_surface, surface.needs_surface) == (False, True, True)
    assert {g.size for g in (plain, dense, surface)} == {(HEIGHT, WIDTH)}
    for generator in (plain, dense, surface):
        generator.prepare()
        generator.request([3])
        assert generator.wait([3], 20).all()
        assert generator.generate(crops(3)).done.all()
        generator.close()


@pytest.mark.parametrize("write", [write_unet, write_surface])
def test_a_precision_that_is_not_there_is_an_error(tmp_path: Path, write: Callable[..., Bundle]) -> None:
    single, half = write(tmp_path / "a", halves=[False]), write(tmp_path / "b", halves=[True])
    open_generator(single, precision="fp32").close()
    open_generator(half, precision="fp16").close()
    with pytest.raises(BundleError, match=r"no generator in fp16; it has fp32"):
        open_generator(single, precision="fp16")
    with pytest.raises(BundleError, match=r"no generator in fp32; it has fp16"):
        open_generator(half)


@pytest.mark.parametrize("write", [write_unet, write_surface])
def test_bfloat16_is_for_the_generator_and_never_for_a_tracks_tables(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, bool] = {}

    def spy(bundle: Bundle, graph: str, *, bfloat16: bool, **rest: Any) -> Runtime:
        asked[graph] = bfloat16
        return open_runtime(bundle, graph, **rest)

    monkeypatch.setattr(opening, "open_runtime", spy)
    open_generator(write(tmp_path / "a"), device="openvino", precision="bf16").close()
    assert asked == {"mapping": False, "generator": True}


def output(bundle: Bundle, **options: Any) -> Any:
    generator = open_generator(bundle, latents=Latents(1), **options)
    generator.request([1, 2])
    generator.wait([1, 2], 20)
    result = generator.generate(crops(1, 2))
    generator.close()
    assert result.done.all()
    return result.output


def test_truncation_is_multi_modal_at_a_half_where_there_are_centres_and_plain_at_seven_tenths_elsewhere(
    tmp_path: Path,
) -> None:
    centred, plain = write_unet(tmp_path / "a", centres=True), write_unet(tmp_path / "b")
    surface = write_surface(tmp_path / "c")
    assert np.array_equal(output(centred), output(centred, truncation=0.5, multi_modal=True))
    assert not np.array_equal(output(centred), output(centred, truncation=0.5, multi_modal=False))
    assert np.array_equal(output(centred, multi_modal=False), output(plain))
    for bundle in (plain, surface):
        assert np.array_equal(output(bundle), output(bundle, truncation=0.7))
        assert not np.array_equal(output(bundle), output(bundle, truncation=0.5))
        with pytest.raises(UsageError, match="multi-modal"):
            open_generator(bundle, multi_modal=True)


def test_latents_are_new_ones_if_none_are_given(tmp_path: Path) -> None:
    bundle = write_unet(tmp_path / "a")
    first, second = open_generator(bundle), open_generator(bundle)
    assert not np.array_equal(first.generate(crops(1)).output, second.generate(crops(1)).output)


def test_the_budget_bounds_the_tracks(tmp_path: Path) -> None:
    bundle = write_surface(tmp_path / "a")
    few, many = open_generator(bundle, budget=0), open_generator(bundle, budget=10_000)
    half = open_generator(bundle, budget=10_000, precision="fp16")
    assert few.capacity == 1
    assert many.capacity == 10_000 // 240
    assert half.capacity == 10_000 // 120


def detection(folder: Path) -> Bundle:
    return write_bundle(folder, tiny_draft(), {"detector.onnx": doubler()})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (detection, "is for detection"),
        (lambda p: write_unet(p, kind="ghost"), "kinds ghost"),
        (lambda p: write_unet(p, z_channels=64), "64 channels"),
        (lambda p: write_unet(p, image_size=(WIDTH, HEIGHT)), "takes images"),
        (lambda p: write_unet(p, embedding_channels=16), "expected embedding, embedding_mask, image"),
        (lambda p: write_unet(p, surface=True, embedding_channels=0), "takes embedding"),
        (lambda p: write_unet(p, architecture="v-sam"), "expected embedding, image, mask, slot, vertices"),
        (lambda p: write_surface(p, architecture="style-unet"), "slot, table_0"),
        (lambda p: write_surface(p, vertices=9), "9 vertices needs 11"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused_at_the_start(tmp_path: Path, write: Write, message: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(BundleError, match=message) as caught:
        open_generator(write(tmp_path / "b"))
    assert "\n" not in str(caught.value)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("array", "value"),
    [
        ("w_avg", np.zeros((1, 512), np.float32)),
        ("w_avg", np.zeros(512, np.float16)),
        ("w_avg", np.full(512, np.nan, np.float32)),
        ("w_centers", np.zeros((0, 512), np.float32)),
        ("w_centers", np.zeros((3, 511), np.float32)),
        ("w_centers", np.full((3, 512), np.inf, np.float32)),
    ],
)
def test_averages_of_another_kind_are_refused(tmp_path: Path, array: str, value: Any) -> None:
    bundle = write_unet(tmp_path / "a", centres=True, replaced={array: value})
    with pytest.raises(BundleError, match=f"{array} of bundle"):
        open_generator(bundle)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "int8"),
        ({"most": 0}, "most is 0"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "bf16"}, "openvino"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_generator(write_unet(tmp_path / "a"), **options)


class Held(Elsewhere):
    """A runtime with memory of its own whose runs wait from the second one on, until they are let go."""

    def __init__(self, bundle: Bundle, graph: str) -> None:
        super().__init__(bundle, graph)
        self.entered, self.let_go = threading.Event(), threading.Event()

    def _run_there(self, feeds: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
        made = super()._run_there(feeds, keep)
        if len(self.fed) > 1:
            self.entered.set()
            assert self.let_go.wait(20)
        return made


def rows_of_frames(bundle: Bundle, device: Device, beside: bool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of the runs that four frames take, of which three come while a run of the first one is under way.

    Args:
        bundle: with the generator.
        device: on which it is said to run.
        beside: whether a small graph makes the inputs there.
        monkeypatch: for what is opened.
    """
    opened: dict[str, Held] = {}
    joined: list[JoinedRuntime] = []

    def open_held(bundle: Bundle, graph: str, **_: Any) -> Runtime:
        if graph == "mapping":
            return Watched(bundle, graph)
        return opened.setdefault(graph, Held(bundle, graph))

    def join(inner: Runtime, most: int) -> JoinedRuntime:
        joined.append(JoinedRuntime(inner, most))
        return joined[0]

    monkeypatch.setattr(opening, "open_runtime", open_held)
    monkeypatch.setattr(opening, "JoinedRuntime", join)
    monkeypatch.setattr(opening, "open_small", lambda make, _: open_on_cpu(make()) if beside else None)
    generator = open_generator(bundle, device=device, latents=Latents(1))
    generator.request([1, 2])
    generator.wait([1, 2], 20)
    frames = [crops(1), crops(2), crops(1, 2), crops(2, 1)]
    generator.generate(frames[0])
    runtime = opened["generator"]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(generator.generate, frames[0])]
        assert runtime.entered.wait(20)
        for frame in frames[1:]:
            asked.append(pool.submit(generator.generate, frame))
            while (joined[0].counts.requests if joined else len(runtime.fed)) < 1 + len(asked):
                time.sleep(0.001)
        runtime.let_go.set()
        made = [one.result().output for one in asked]
    rows = [feeds["image"].shape[0] for feeds in runtime.fed]
    expected = [generator.generate(frame).output for frame in frames]
    for got, alone in zip(made, expected, strict=True):
        np.testing.assert_allclose(got, alone, atol=1e-5)
    generator.close()
    return rows


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("write", [write_unet, write_surface])
def test_persons_of_several_frames_share_runs_on_gpus(
    tmp_path: Path, write: Write, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rows_of_frames(write(tmp_path / "b"), "cuda", beside, monkeypatch) == [1, 1, 5]


@pytest.mark.parametrize(
    "write", [write_unet, lambda p: write_unet(p, surface=True), write_surface], ids=["plain", "dense", "guided"]
)
def test_on_gpus_inputs_are_made_where_the_graph_runs(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, opened = write(tmp_path / "b"), []

    def open_here(bundle: Bundle, graph: str, **_: Any) -> Runtime:
        opened.append(Watched(bundle, graph) if graph == "mapping" else Elsewhere(bundle, graph))
        return opened[-1]

    expected = output(bundle)
    monkeypatch.setattr(opening, "open_runtime", open_here)
    monkeypatch.setattr(opening, "open_small", lambda make, _: open_on_cpu(make()))
    assert np.array_equal(output(bundle, device="cuda", most=1), expected)
    assert all(runtime.closed for runtime in opened)


@pytest.mark.parametrize("value", [np.zeros((4, 3), np.float32), np.zeros((4, 16)), np.full((4, 16), np.nan, "f4")])
def test_embeddings_of_another_kind_are_refused(tmp_path: Path, value: Any) -> None:
    for bundle in (write_unet(tmp_path / "a", surface=True), write_surface(tmp_path / "b")):
        with pytest.raises(BundleError, match="vertex_embeddings of bundle"):
            open_generator(bundle, embeddings=value)
    with pytest.raises(BundleError, match="export it again with --surface"):
        open_generator(write_surface(tmp_path / "c", embeddings=False))


def test_on_processors_no_frame_shares_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_of_frames(write_surface(tmp_path / "b"), "openvino", True, monkeypatch) == [1] * 7


def test_an_engine_process_joins_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_runtime", lambda bundle, graph, **_: Watched(bundle, graph))
    monkeypatch.setattr(opening, "JoinedRuntime", lambda *_: pytest.fail("joined here as well"))
    open_generator(write_unet(tmp_path / "b"), device="cuda", server=tmp_path / "socket").close()
