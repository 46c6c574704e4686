"""A narrow generator that learns from a bundle's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError, UsageError
from engines.runtime import open_runtime
from export.starter.crop_batches import PLAIN
from export.starter.crops import BACKGROUND, OTHERS, CropSet
from export.starter.generator_answers import NarrowConfig, WideGenerator
from export.starter.generator_narrowing import NarrowingTask, narrow_generator
from export.starter.training import Budget, load_checkpoint
from tests.export.starter.made_people import NETWORK, SIZE, crops, surface
from tests.export.starter.narrow_people import trained_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = NarrowConfig(widths=(4, 6, 8), batch=4, half_life=20, bfloat16=False, workers=0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> CropSet:
    return crops(tmp_path_factory.mktemp("people") / "crops", 6)


def test_the_narrow_network_comes_nearer_to_the_wide_one(bundle: Bundle, people: CropSet) -> None:
    wide = WideGenerator(bundle, surface().canonical, people, CONFIG, seed=1)
    task = NarrowingTask(replace(CONFIG, rate=0.01), wide)
    task.begin(0)
    figures = [task.step(np.random.default_rng(0), 0.0) for _ in range(60)]
    task.close()
    wide.close()
    first, last = (sum(line["difference"] for line in part) / 10 for part in (figures[:10], figures[-10:]))
    assert last < 0.85 * first


def test_a_batch_depends_on_its_number_and_the_seed_alone(bundle: Bundle, people: CropSet) -> None:
    made = []
    for seed in (1, 1, 2):
        wide = WideGenerator(bundle, surface().canonical, people, CONFIG, seed=seed)
        made.append(wide.batch(7))
        wide.close()
    assert all((one == other).all() for one, other in zip(made[0], made[1], strict=True))
    assert (made[0].answer != made[2].answer).any()


def test_the_answer_is_the_wide_networks_person_before_the_true_background(bundle: Bundle, people: CropSet) -> None:
    hiding = replace(CONFIG, augment=replace(PLAIN, dilation=(20.0, 20.0)))
    wide = WideGenerator(bundle, surface().canonical, people, hiding, seed=1)
    made, drawn = wide.batch(3), np.random.default_rng((1, 1, 3)).integers(0, len(people), CONFIG.batch)
    wide.close()
    labels = torch.from_numpy(np.stack([people.labels[i] for i in drawn]))[:, None]
    same = (made.answer == made.image).all(dim=1, keepdim=True)
    # Nothing of the person is left, though the narrow network is not told of it by its larger mask.
    assert not same[labels >= 0].any()
    assert (made.mask[labels >= 0] == 0).all()
    # Where its mask hides background, that is what it should continue.
    hidden = (made.mask == 0) & (labels == BACKGROUND)
    assert same[hidden].float().mean() > 0.5
    assert (made.counts[hidden] == 1).all()
    # Other people whom it cannot know do not count, unless the wide network had to do without them as well.
    others = (made.mask == 0) & (labels == OTHERS)
    assert others.any()
    assert ((made.counts[others] == 0) == same[others]).all()
    assert (made.counts[made.mask > 0] == 0).all()


def test_the_bundle_has_the_wide_ones_tables_and_a_smaller_graph(
    bundle: Bundle, people: CropSet, tmp_path: Path
) -> None:
    made = narrow_generator(
        bundle, surface().canonical, people, tmp_path / "run", Budget(steps=2), CONFIG, name="narrow"
    )
    assert made.path == tmp_path / "run" / "narrow"
    found, before = open_bundle(made.path).manifest, bundle.manifest
    assert found.name == "narrow"
    for file in ("mapping.onnx", "vertex_embeddings.npy"):
        assert found.files[file] == before.files[file]
    assert {case.graph for case in found.parity} == {"mapping", "generator"}
    assert made.file("generator.onnx").stat().st_size < bundle.file("generator.onnx").stat().st_size
    assert "Clip" not in {node.op_type for node in onnx.load(made.file("generator.onnx")).graph.node}
    assert found.generation is not None
    assert found.generation.image_size == SIZE
    with open_runtime(made, "generator") as runtime:
        assert [tensor.name for tensor in runtime.inputs] == [t.name for t in bundle.graph("generator").inputs]


@pytest.mark.thorough
def test_a_run_goes_on_where_it_stopped_and_ends_as_one_that_did_not(
    bundle: Bundle, people: CropSet, tmp_path: Path
) -> None:
    def run(folder: str, steps: int, *, resume: bool = False) -> None:
        budget = Budget(steps=steps)
        narrow_generator(
            bundle, surface().canonical, people, tmp_path / folder, budget, CONFIG, name=f"after-{steps}", resume=resume
        )

    run("whole", 4)
    run("parts", 2)
    with pytest.raises(UsageError, match="holds a training already"):
        run("parts", 4)
    run("parts", 4, resume=True)
    steps = [load_checkpoint(tmp_path / folder / "checkpoint.pt")["step"] for folder in ("whole", "parts")]
    assert steps == [4, 4]


def test_what_does_not_fit_is_refused(bundle: Bundle, people: CropSet, tmp_path: Path) -> None:
    canonical = surface().canonical
    with pytest.raises(UsageError, match="cut them again"):
        WideGenerator(bundle, canonical, crops(tmp_path / "small", 2, size=(16, 8)), CONFIG, seed=1)
    with pytest.raises(CheckpointError, match="another body"):
        WideGenerator(bundle, canonical[:-1], people, CONFIG, seed=1)
    wide = WideGenerator(bundle, canonical, people, CONFIG, seed=1)
    with pytest.raises(CheckpointError, match=f"has {len(NETWORK.widths)} levels"):
        NarrowingTask(replace(CONFIG, widths=(4, 6)), wide)
    wide.close()
