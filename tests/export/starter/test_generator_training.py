import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.errors import CheckpointError, UsageError
from export.starter.crop_batches import PLAIN
from export.starter.generator_export import read_generator
from export.starter.generator_losses import LossConfig, reconstruction_loss
from export.starter.generator_network import generate
from export.starter.generator_training import GeneratorTask, TrainingConfig, train_generator
from export.starter.training import LOG_NAME, Budget
from tests.export.starter.made_people import CONFIG, LOOK, NETWORK, crops, surface

pytestmark = pytest.mark.usefixtures("one_thread")


def task(folder: Path, config: TrainingConfig = CONFIG, count: int = 6) -> GeneratorTask:
    made = GeneratorTask(config, crops(folder / "crops", count), surface(), seed=3)
    made.begin(0)
    return made


def steps(made: GeneratorTask, count: int) -> list[dict[str, float]]:
    return [dict(made.step(np.random.default_rng(0), 0.0)) for _ in range(count)]


def weights_of(path: Path) -> dict[str, Tensor]:
    return read_generator(path)[0].state_dict()


ALONE = LossConfig(adversarial=0.0)
FAST = replace(CONFIG, losses=ALONE, rate=0.01, betas=(0.5, 0.99))


def test_a_few_steps_lower_the_reconstruction_loss(tmp_path: Path) -> None:
    made = task(tmp_path, FAST)
    figures = steps(made, 40)
    first, last = (sum(line["reconstruction"] for line in part) / 10 for part in (figures[:10], figures[-10:]))
    assert last < 0.6 * first


def test_z_decides_what_is_generated(tmp_path: Path) -> None:
    """The true z fits a person better than somebody else's, so colours were learnt from it."""
    network = replace(NETWORK, z_channels=LOOK)
    made = task(tmp_path, replace(FAST, network=network, augment=PLAIN, batch=8), count=30)
    steps(made, 80)
    embeddings = torch.from_numpy(surface().embeddings)
    own = others = 0.0
    for seed in range(4):
        batch = made.batch(1000 + seed)
        for z, belongs in ((batch.z, True), (batch.z.roll(1, 0), False)):
            output, _ = generate(made.averaged(), z, batch, embeddings)
            error = float(reconstruction_loss(output, batch.image, batch.wanted))
            own, others = (own + error, others) if belongs else (own, others + error)
    assert own < 0.9 * others


def test_every_figure_is_logged_and_finite_with_all_terms_on(tmp_path: Path) -> None:
    figures = steps(task(tmp_path, replace(CONFIG, losses=LossConfig(r1_interval=2, surface_of_made=0.5))), 3)
    assert set(figures[0]) == {
        "reconstruction", "gradient", "adversarial", "surface", "discriminator", "score_gap", "r1",
    }  # fmt: skip
    assert np.isfinite([list(line.values()) for line in figures]).all()
    assert all(line["surface"] > 0 and line["adversarial"] > 0 for line in figures)
    assert figures[0]["r1"] == figures[1]["r1"] != figures[2]["r1"]


def test_without_an_adversarial_term_the_discriminator_stays(tmp_path: Path) -> None:
    made = task(tmp_path, replace(CONFIG, losses=ALONE))
    before = {name: value.clone() for name, value in made.adversary.network.state_dict().items()}
    figures = steps(made, 2)
    assert all(torch.equal(before[name], value) for name, value in made.adversary.network.state_dict().items())
    assert figures[0]["adversarial"] == figures[0]["discriminator"] == 0


def test_the_discriminator_joins_after_so_many_pictures(tmp_path: Path) -> None:
    config = replace(CONFIG, losses=replace(CONFIG.losses, adversarial_after=2 * CONFIG.batch))
    figures = steps(task(tmp_path, config), 3)
    assert [line["adversarial"] > 0 for line in figures] == [False, False, True]


@pytest.mark.parametrize(
    "change", [{"surface": 0.0}, {"epsilon": 50.0}, {"r1_masked": False}, {"r1": 0.0}, {"surface_of_made": 1.0}]
)
def test_every_term_of_the_discriminator_changes_its_weights(tmp_path: Path, change: dict[str, float]) -> None:
    changed = replace(CONFIG, losses=replace(CONFIG.losses, **change))  # type: ignore[arg-type]
    made = [task(tmp_path / str(i), config) for i, config in enumerate((CONFIG, changed))]
    for one in made:
        steps(one, 2)
    first, second = (one.adversary.network.state_dict() for one in made)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_training_ends_like_one_that_was_not(tmp_path: Path) -> None:
    given = crops(tmp_path / "crops", 6)

    def run(name: str, count: int, *, resume: bool = False) -> Path:
        return train_generator(
            CONFIG, given, surface(), tmp_path / name, Budget(steps=count), seed=5, resume=resume, save_every=2
        )

    whole = weights_of(run("whole", 6))
    run("parts", 3)
    parts = weights_of(run("parts", 6, resume=True))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    shorter = weights_of(run("shorter", 3))
    assert any(not torch.equal(whole[name], shorter[name]) for name in whole)


def test_the_log_has_a_line_of_figures(tmp_path: Path) -> None:
    given = crops(tmp_path / "crops", 6)
    config = replace(CONFIG, losses=ALONE, batch=1)
    train_generator(config, given, surface(), tmp_path / "run", Budget(steps=50))
    with (tmp_path / "run" / LOG_NAME).open(newline="") as stream:
        (line,) = csv.DictReader(stream)
    assert line["step"] == "50"
    assert float(line["reconstruction"]) > 0


def test_averaged_weights_lag_behind(tmp_path: Path) -> None:
    made = task(tmp_path, replace(CONFIG, half_life=1000.0))
    before = made.network.get_parameter("to_rgb.weight").clone()
    steps(made, 8)
    now, average = made.network.get_parameter("to_rgb.weight"), made.averaged().get_parameter("to_rgb.weight")
    assert not torch.equal(now, average)
    assert (average - before).norm() < (now - before).norm()
    assert made.averaged().style_net.E_map.w_avg.abs().sum() > 0


def test_a_training_begins_with_what_another_learnt_from_smaller_crops(tmp_path: Path) -> None:
    small = replace(CONFIG, network=replace(NETWORK, image_size=(16, 8)), losses=ALONE)
    given = crops(tmp_path / "small-crops", 4, size=(16, 8))
    first = train_generator(small, given, surface(), tmp_path / "small", Budget(steps=2))
    given = crops(tmp_path / "crops", 4)
    second = train_generator(CONFIG, given, surface(), tmp_path / "run", Budget(steps=0), weights=first)
    before, after = weights_of(first), weights_of(second)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.endswith("w_avg"))
    wider = replace(CONFIG, network=replace(NETWORK, widths=(6, 8, 16)))
    with pytest.raises(CheckpointError, match="no weights for this generator"):
        train_generator(wider, given, surface(), tmp_path / "other", Budget(steps=0), weights=first)


def test_what_people_look_like_is_learnt_before_the_first_step(tmp_path: Path) -> None:
    given = crops(tmp_path / "crops", 4)
    told: list[str] = []
    config = replace(CONFIG, appearance_steps=100)
    plain, taught = (
        weights_of(train_generator(c, given, surface(), tmp_path / name, Budget(steps=0), progress=told.append))
        for name, c in (("plain", CONFIG), ("taught", config))
    )
    changed = {name for name in plain if not torch.equal(plain[name], taught[name])}
    assert {name.split(".")[1] for name in changed} == {"E_map"}
    assert any(line.startswith("appearance, step 100 of 100") for line in told)


@pytest.mark.filterwarnings("ignore")  # of the compiler about itself
def test_a_compiled_network_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced as it will be, but run by torch itself: to wait for a C++ compiler would take a minute.
    compile_it = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_it(module, backend="eager"))
    plain, compiled = (
        task(tmp_path / name, replace(CONFIG, losses=ALONE, compiled=compiled))
        for name, compiled in (("plain", False), ("compiled", True))
    )
    assert steps(plain, 2) == [pytest.approx(line, rel=1e-3) for line in steps(compiled, 2)]
    assert compiled.state()["network"].keys() == plain.state()["network"].keys()


def test_bfloat16_learns_too(tmp_path: Path) -> None:
    made = task(tmp_path, replace(CONFIG, bfloat16=True))
    figures = steps(made, 2)
    assert np.isfinite([list(line.values()) for line in figures]).all()
    assert made.network.get_parameter("to_rgb.weight").dtype == torch.float32


def test_rates_fall_where_asked_for(tmp_path: Path) -> None:
    made = [task(tmp_path / str(on), replace(CONFIG, losses=ALONE, cosine=on)) for on in (False, True)]
    moved = []
    for one in made:
        before = one.network.get_parameter("to_rgb.weight").detach().clone()
        one.step(np.random.default_rng(0), 1.0)
        after = one.network.get_parameter("to_rgb.weight").detach()
        moved.append(float((after - before).abs().max()))
    assert moved[1] < 0.1 * moved[0]


def test_crops_of_another_size_are_refused(tmp_path: Path) -> None:
    given = crops(tmp_path, 3, size=(48, 24))
    with pytest.raises(UsageError, match="cut them again"):
        GeneratorTask(CONFIG, given, surface(), seed=0)


def test_looks_longer_than_z_are_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, network=replace(NETWORK, z_channels=4))
    with pytest.raises(UsageError, match="z 4"):
        GeneratorTask(config, crops(tmp_path, 3), surface(), seed=0)
