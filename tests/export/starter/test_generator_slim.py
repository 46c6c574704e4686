"""A narrower network out of a bundle's: exact where nothing that counts is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.bundle import Bundle
from engines.errors import CheckpointError
from engines.runtime import open_runtime
from export import graphs
from export.models.surface import SurfaceUnet
from export.starter.generator_answers import Answered, generate, spec_of, with_widths
from export.starter.generator_network import draw_weights
from export.starter.generator_slim import read_wide, slim, widths_of
from tests.export.starter.made_people import NETWORK
from tests.export.starter.narrow_people import trained_bundle
from tests.generator_bundles import write_unet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def wide(bundle: Bundle) -> dict[str, Tensor]:
    return read_wide(bundle)


def cut(bundle: Bundle, weights: dict[str, Tensor], widths: tuple[int, ...]) -> SurfaceUnet:
    network = SurfaceUnet(with_widths(spec_of(bundle, weights), widths)).eval()
    draw_weights(network)
    slim(network, weights)
    return network


def answers(bundle: Bundle, network: SurfaceUnet) -> tuple[np.ndarray, np.ndarray]:
    """What the bundle's graph and a network give for the same people."""
    spec = network.spec
    example = graphs.random_inputs(spec.image_size, spec.z_channels, spec.embedding_channels, spec.vertices)
    with open_runtime(bundle, "mapping") as mapping, open_runtime(bundle, "generator") as generator:
        tables = [mapping.run({"z": z[None], "truncation": np.ones(1, np.float32)})["table_0"] for z in example["z"]]
        feeds = {"table_0": np.stack(tables)} | {
            name: example[name] for name in ("image", "mask", "embedding", "vertices", "slot")
        }
        expected = generator.run(feeds)["output"]
    rows = feeds["table_0"][feeds["slot"][:, None, None], feeds["vertices"]].transpose(0, 3, 1, 2)
    image, mask, embedding = graphs.tensors(example, "image", "mask", "embedding")
    with torch.no_grad():
        made = generate(network, Answered(image, mask, embedding, torch.from_numpy(rows), image, 1 - mask))
    return expected, made.numpy()


def test_a_network_as_wide_gives_what_the_bundle_gives(bundle: Bundle, wide: dict[str, Tensor]) -> None:
    assert widths_of(wide) == (NETWORK.widths, NETWORK.middle_blocks)
    expected, found = answers(bundle, cut(bundle, wide, NETWORK.widths))
    assert np.abs(expected - expected.mean()).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_channels_that_nobody_reads_are_those_that_go(bundle: Bundle, wide: dict[str, Tensor]) -> None:
    """With half of the inputs of every layer between levels unread, the half as wide network loses nothing."""
    weights = {name: values.clone() for name, values in wide.items()}
    draw = torch.Generator().manual_seed(3)
    readers: dict[str, tuple[str, ...]] = {"from_rgb": ("encoder.0.conv0", "encoder.0.skip")}
    readers["encoder.0"] = ("encoder.1.conv0", "encoder.1.skip", "unet_block2")
    readers["encoder.1"] = ("encoder.2.conv0", "encoder.2.skip", "unet_block1")
    readers["encoder.2"] = ("middle_blocks.0.conv0", "middle_blocks.0.skip")
    readers["middle"] = ("decoder.0.conv0", "decoder.0.skip")
    readers["decoder.0"] = ("decoder.1.conv0", "decoder.1.skip")
    readers["decoder.1"] = ("decoder.2.conv0", "decoder.2.skip")
    readers["decoder.2"] = ("to_rgb",)
    blocks = [f"encoder.{i}" for i in range(3)] + ["middle_blocks.0"] + [f"decoder.{i}" for i in range(3)]
    readers |= {f"{block} inside": (f"{block}.conv1",) for block in blocks}
    for names in readers.values():
        count = weights[f"{names[0]}.weight"].shape[1]
        unread = torch.randperm(count, generator=draw)[: count // 2]
        for name in names:
            weights[f"{name}.weight"][:, unread] = 0
    _, whole = answers(bundle, cut(bundle, weights, NETWORK.widths))
    _, half = answers(bundle, cut(bundle, weights, tuple(width // 2 for width in NETWORK.widths)))
    np.testing.assert_allclose(half, whole, atol=1e-4)


@pytest.mark.parametrize("widths", [(6, 8, 13), (6, 9, 12), (7, 8, 12)])
def test_a_wider_network_is_refused(widths: tuple[int, ...], bundle: Bundle, wide: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="give smaller widths"):
        cut(bundle, wide, widths)


def test_the_bundle_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no bundle of a V-SAM generator"):
        read_wide(write_unet(tmp_path / "unet"))
