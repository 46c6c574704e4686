"""From a checkpoint to a bundle, and nothing left behind where that fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.bundle import open_bundle
from engines.errors import CheckpointError, UsageError
from engines.runtime import open_runtime
from export import graphs
from export.generators import export_generator
from tests.export.helpers import weights

CASES = (("dp2-person-cse", "dp2_cse_small"), ("dp2-person", "dp2_nocse_small"), ("sg-gan", "sggan_small"))


def checkpoint(folder: Path, case: str) -> Path:
    path = folder / f"{case}.ckpt"
    torch.save({"EMA_generator": weights(case)}, path)
    return path


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_bundle_is_verified_and_hides_what_the_mask_hides(name: str, case: str, tmp_path: Path) -> None:
    made = export_generator(name, checkpoint(tmp_path, case), tmp_path / "bundle", config=name, precision="fp32")
    bundle = open_bundle(made.path)
    assert {"mapping", "generator"} == set(bundle.manifest.graphs)
    assert all(p.measured is not None and p.measured <= p.tolerance for p in bundle.manifest.parity)
    generation = bundle.manifest.generation
    assert generation is not None
    assert generation.activations
    feeds = graphs.random_inputs((288, 160), 512, 16, generation.vertices)
    draw = np.random.default_rng(0)
    for tensor in bundle.graph("generator").inputs:
        if tensor.name == "w" or tensor.name.startswith("table_"):
            shape = [side if isinstance(side, int) else 2 for side in tensor.shape]
            feeds[tensor.name] = draw.normal(size=shape).astype(np.float32)
    feeds = {tensor.name: feeds[tensor.name] for tensor in bundle.graph("generator").inputs}
    with open_runtime(bundle, "generator") as runtime:
        first = runtime.run(feeds)["output"]
        hidden = feeds["image"] + (1 - feeds["mask"])
        assert np.array_equal(runtime.run(feeds | {"image": hidden})["output"], first)
        shown = feeds["image"] + 0.1 * feeds["mask"]
        assert not np.array_equal(runtime.run(feeds | {"image": shown})["output"], first)


def test_a_file_of_another_family_leaves_nothing(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "sggan_small")
    with pytest.raises(CheckpointError):
        export_generator("dp2-person", path, tmp_path / "bundle", config="dp2-person")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "dp2_face_small")
    with pytest.raises(UsageError, match="not an empty folder"):
        export_generator("dp2-face", path, tmp_path, config="dp2-face")
