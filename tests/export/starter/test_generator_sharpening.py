"""A bundle's generator that learns on before a discriminator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.bundle import Bundle, open_bundle
from engines.errors import CheckpointError, UsageError
from engines.runtime import open_runtime
from export.starter.crop_batches import make_batch, nearest_vertices
from export.starter.crops import CropSet
from export.starter.discriminator import DiscriminatorConfig
from export.starter.generator_losses import LossConfig
from export.starter.generator_sharpening import SharpenConfig, SharpeningTask, sharpen_generator
from export.starter.training import Budget
from tests.export.starter.made_people import crops, surface
from tests.export.starter.narrow_people import trained_bundle

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SharpenConfig(
    discriminator=DiscriminatorConfig(widths=(6, 8, 12), pyramid=6),
    losses=LossConfig(r1_interval=2),
    batch=4,
    half_life=20,
    bfloat16=False,
    workers=0,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return trained_bundle(tmp_path_factory)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> CropSet:
    return crops(tmp_path_factory.mktemp("people") / "crops", 6)


def begun(bundle: Bundle, people: CropSet, config: SharpenConfig = CONFIG, *, seed: int = 1) -> SharpeningTask:
    task = SharpeningTask(config, bundle, surface().canonical, people, seed=seed)
    task.begin(0)
    return task


def steps(task: SharpeningTask, count: int) -> list[dict[str, float]]:
    return [dict(task.step(np.random.default_rng(0), 0.0)) for _ in range(count)]


def test_it_begins_as_the_bundles_generator(bundle: Bundle, people: CropSet) -> None:
    task = begun(bundle, people)
    known = task.batch(3)
    network = task.averaged()
    with torch.no_grad():
        gammas = network.style_net.of_layers(known.rows)
        made = network(known.image, known.mask, known.embedding, gammas).numpy()
    body = known.body[:, 0].numpy() > 0
    task.close()
    with open_runtime(bundle, "mapping") as mapping, open_runtime(bundle, "generator") as generator:
        given = mapping.inputs[0].shape[-1]
        assert isinstance(given, int)
        rows = known.rows.permute(0, 2, 3, 1).numpy()
        for number in range(CONFIG.batch):
            # A table that is put together from the rows of its pixels.
            table = mapping.run({"z": np.zeros((1, given), np.float32), "truncation": np.ones(1, np.float32)})[
                "table_0"
            ]
            table = np.array(table)
            vertices = np.full(body.shape[1:], len(table) - 1, np.int64)
            vertices[known.mask[number, 0].numpy() > 0] = len(table) - 2
            shown, first = np.unique(rows[number][body[number]], axis=0, return_inverse=True)
            assert len(shown) <= len(table) - 2
            table[: len(shown)] = shown
            vertices[body[number]] = first.reshape(-1)
            answer = generator.run(
                {
                    "image": known.image[number, None].numpy(),
                    "mask": known.mask[number, None].numpy(),
                    "embedding": known.embedding[number, None].numpy(),
                    "vertices": vertices[None],
                    "slot": np.zeros(1, np.int64),
                    "table_0": table[None],
                }
            )["output"]
            np.testing.assert_allclose(answer[0], made[number], atol=2e-4)


def test_z_is_what_the_people_were_drawn_from(bundle: Bundle, people: CropSet) -> None:
    task = begun(bundle, people)
    known, drawn = task.batch(2), np.random.default_rng((1, 1, 2)).integers(0, len(people), CONFIG.batch)
    task.close()
    assert torch.equal(
        known.image[0], torch.from_numpy(np.array(people.images[drawn[0]])).permute(2, 0, 1).float() / 127.5 - 1
    )
    # Each pixel has the row of its vertex in the table of its person's look; beside that z is noise, drawn once.
    draw = np.random.default_rng((1, 1, 2))
    draw.integers(0, len(people), CONFIG.batch)
    near = nearest_vertices(surface().canonical, CONFIG.augment.neighbours)
    told = make_batch(people, drawn, near, CONFIG.augment, 8, draw)
    looks = np.stack([people.looks[i] for i in drawn])
    np.testing.assert_array_equal(told.z[:, : looks.shape[1]].numpy(), looks)
    with open_runtime(bundle, "mapping") as mapping:
        for number in range(CONFIG.batch):
            z = told.z[number, None].numpy()
            table = mapping.run({"z": z, "truncation": np.ones(1, np.float32)})["table_0"]
            body = told.body[number, 0].numpy() > 0
            rows = known.rows[number].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(rows[body], table[told.vertices[number].numpy()[body]], atol=1e-5)
            seen = rows[told.mask[number, 0].numpy() > 0]
            np.testing.assert_allclose(seen, np.broadcast_to(table[-2], seen.shape), atol=1e-5)


def test_all_terms_count_and_both_networks_learn(bundle: Bundle, people: CropSet) -> None:
    task = begun(bundle, people)
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in both(task)]
    figures = steps(task, 3)
    task.close()
    assert set(figures[0]) == {
        "reconstruction", "gradient", "adversarial", "surface", "discriminator", "score_gap", "r1",
    }  # fmt: skip
    assert np.isfinite([list(line.values()) for line in figures]).all()
    assert all(line[name] > 0 for line in figures for name in ("reconstruction", "gradient", "adversarial", "surface"))
    assert figures[0]["r1"] == figures[1]["r1"] != figures[2]["r1"]
    for old, network in zip(before, both(task), strict=True):
        assert any(not torch.equal(old[name], value) for name, value in network.state_dict().items())


def both(task: SharpeningTask) -> tuple[torch.nn.Module, torch.nn.Module]:
    return task.network, task.adversary.network


def test_at_first_the_discriminator_learns_alone(bundle: Bundle, people: CropSet) -> None:
    config = replace(CONFIG, alone=2 * CONFIG.batch)
    task = begun(bundle, people, config)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    figures = steps(task, 2)
    assert all(torch.equal(before[name], value) for name, value in task.network.state_dict().items())
    assert all(line["discriminator"] > 0 == line["adversarial"] for line in figures)
    assert steps(task, 1)[0]["adversarial"] > 0
    task.close()
    assert any(not torch.equal(before[name], value) for name, value in task.network.state_dict().items())


def test_without_a_discriminators_say_it_learns_what_z_tells(bundle: Bundle, people: CropSet) -> None:
    task = begun(bundle, people, replace(CONFIG, losses=replace(CONFIG.losses, adversarial=0.0), rate=0.01))
    figures = steps(task, 40)
    task.close()
    first, last = (sum(line["reconstruction"] for line in part) / 10 for part in (figures[:10], figures[-10:]))
    assert last < 0.8 * first


def test_the_bundle_has_the_same_tables_and_another_graph(bundle: Bundle, people: CropSet, tmp_path: Path) -> None:
    made = sharpen_generator(
        bundle, surface().canonical, people, tmp_path / "run", Budget(steps=2), CONFIG, name="sharp"
    )
    assert made.path == tmp_path / "run" / "sharp"
    found, before = open_bundle(made.path).manifest, bundle.manifest
    assert found.name == "sharp"
    for file in ("mapping.onnx", "vertex_embeddings.npy"):
        assert found.files[file] == before.files[file]
    assert found.files["generator.onnx"] != before.files["generator.onnx"]
    assert {case.graph for case in found.parity} == {"mapping", "generator"}


def test_what_was_stopped_goes_on_as_if_it_had_not(bundle: Bundle, people: CropSet) -> None:
    whole = begun(bundle, people)
    steps(whole, 4)
    first = begun(bundle, people)
    steps(first, 2)
    second = SharpeningTask(CONFIG, bundle, surface().canonical, people, seed=1)
    second.load(first.state())
    second.begin(2)
    steps(second, 2)
    for task in (whole, first, second):
        task.close()
    for one, other, shorter in zip(both(whole), both(second), both(first), strict=True):
        values = one.state_dict()
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in values.items())
        assert any(not torch.equal(value, shorter.state_dict()[name]) for name, value in values.items())
    assert all(torch.equal(value, second.average.values[name]) for name, value in whole.average.values.items())


def test_what_does_not_fit_is_refused(bundle: Bundle, people: CropSet, tmp_path: Path) -> None:
    canonical = surface().canonical
    with pytest.raises(UsageError, match="cut them again"):
        SharpeningTask(CONFIG, bundle, canonical, crops(tmp_path / "small", 2, size=(16, 8)), seed=1)
    with pytest.raises(CheckpointError, match="another body"):
        SharpeningTask(CONFIG, bundle, canonical[:-1], people, seed=1)
    longer = CropSet(people.images, people.labels, np.zeros((len(people), 9), np.float32))
    with pytest.raises(UsageError, match="looks have 9 channels, the bundle's z 8"):
        SharpeningTask(CONFIG, bundle, canonical, longer, seed=1)
