from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError
from engines.runtime import open_runtime
from export.graphs import random_inputs
from export.starter.crop_batches import PLAIN, Batch, make_batch, nearest_vertices
from export.starter.generator_export import export_starter, read_generator, write_generator
from export.starter.generator_network import generate
from stream.generators.base import Crops
from stream.generators.open import open_generator
from stream.latents import Latents
from stream.surface import Surface
from tests.export.starter.made_people import CHANNELS, NETWORK, SIZE, VERTICES, crops, surface
from tests.export.starter.narrow_people import trained_bundle, trained_generator

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_generator(tmp_path_factory)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained_bundle(tmp_path_factory)


def batch(folder: Path) -> Batch:
    near = nearest_vertices(surface().canonical, 3)
    return make_batch(crops(folder, 3), [0, 1], near, PLAIN, NETWORK.z_channels, np.random.default_rng(0))


def test_the_bundle_is_one_of_v_sam(bundle: Bundle) -> None:
    manifest = open_bundle(bundle.path).manifest
    assert manifest.name == "starter-generator"
    assert manifest.generation is not None
    assert manifest.generation.architecture == "v-sam"
    assert (manifest.generation.vertices, manifest.generation.z_channels) == (VERTICES, NETWORK.z_channels)
    np.testing.assert_allclose(bundle.array("vertex_embeddings"), surface().embeddings, atol=1e-6)


def test_no_pass_over_the_pixels_bounds_what_float32_holds(bundle: Bundle) -> None:
    graph = onnx.load(bundle.file("generator.onnx")).graph
    assert "LeakyRelu" in {node.op_type for node in graph.node}
    assert "Clip" not in {node.op_type for node in graph.node}


def test_the_engine_generates_what_the_network_does(bundle: Bundle, trained: Path, tmp_path: Path) -> None:
    """The whole way as at run time: tables per track, vertices found from embeddings, pixels of uint8."""
    network, _ = read_generator(trained)
    given, latents = batch(tmp_path), Latents(seed=1, channels=NETWORK.z_channels)
    generator = open_generator(bundle, latents=latents, truncation=1.0)
    assert generator.needs_surface
    search = Surface(np.asarray(bundle.array("vertex_embeddings"), np.float32))
    body, known = given.body[:, 0].numpy() > 0, given.mask[:, 0].numpy() > 0
    regressed = surface().embeddings[given.vertices.numpy()].transpose(0, 3, 1, 2)
    vertices = search.vertices(np.ascontiguousarray(regressed), body, known)
    pixels = ((given.image + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    tracks = np.array([4, 9], np.int64)
    found = Crops(
        images=np.ascontiguousarray(pixels),
        known=known,
        track_ids=tracks,
        body=body,
        vertices=vertices,
    )
    generator.request(tracks)
    assert generator.wait(tracks).all()
    output = generator.generate(found).output
    generator.close()
    z = torch.from_numpy(np.stack([latents.of(int(track)).z for track in tracks]))
    expected, _ = generate(network, z, given, torch.from_numpy(surface().embeddings))
    np.testing.assert_allclose(output, expected.numpy(), atol=2e-3)


def test_persons_of_one_run_take_each_its_own_table(bundle: Bundle) -> None:
    """Few vertices: their rows are multiplied first, and gathered from each person's product."""
    assert "GatherND" in {node.op_type for node in onnx.load(bundle.file("generator.onnx")).graph.node}
    made = random_inputs(SIZE, NETWORK.z_channels, CHANNELS, VERTICES)
    slots, tables = np.array([2, 0, 2], np.int64), random_tables(3)
    persons = {
        name: np.concatenate([made[name], made[name][:1]]) for name in ("image", "mask", "embedding", "vertices")
    }
    with open_runtime(bundle, "generator") as runtime:
        together = runtime.run(persons | {"slot": slots, "table_0": tables})["output"]
        for i, slot in enumerate(slots):
            one = {name: values[i : i + 1] for name, values in persons.items()}
            alone = runtime.run(one | {"slot": np.zeros(1, np.int64), "table_0": tables[slot : slot + 1]})["output"]
            np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-4)
    # The first and the last are one crop with one table, the first and the second are not.
    assert np.abs(together[0] - together[2]).max() < 1e-4
    assert np.abs(together[0] - together[1]).max() > 1e-2


def random_tables(slots: int) -> NDArray[np.float32]:
    draw = np.random.default_rng(4)
    return draw.standard_normal((slots, VERTICES + 2, NETWORK.w_channels)).astype(np.float32)


def test_truncated_to_zero_everybody_is_the_average(bundle: Bundle) -> None:
    z = np.random.default_rng(0).standard_normal((2, 1, NETWORK.z_channels), np.float32)
    with open_runtime(bundle, "mapping") as runtime:
        average, same, own = (
            runtime.run({"z": one, "truncation": np.array([amount], np.float32)})["table_0"]
            for one, amount in ((z[0], 0.0), (z[1], 0.0), (z[1], 1.0))
        )
    np.testing.assert_array_equal(average, same)
    assert np.abs(average - own).max() > 1e-2


def test_the_generator_comes_back_from_its_file(trained: Path, tmp_path: Path) -> None:
    network, config = read_generator(trained)
    assert config == NETWORK
    write_generator(tmp_path / "again.ckpt", network, config)
    again, _ = read_generator(tmp_path / "again.ckpt")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in network.state_dict().items())


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"EMA_generator": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no generator of this training"):
        read_generator(tmp_path / "other.ckpt")


def test_another_surface_is_refused(trained: Path, tmp_path: Path) -> None:
    other = np.ascontiguousarray(surface().embeddings[::-1])
    with pytest.raises(CheckpointError, match="not the one in the generator"):
        export_starter(trained, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
