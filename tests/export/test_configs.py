from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from engines.checkpoints import checkpoints
from engines.errors import CheckpointError, UsageError
from export.configs import Choice, Config, SurfaceConfig, UnetConfig, choose_config, configs
from export.detectron2_configs import detector_configs
from export.dsfd import NAME

VERBS = {"dp2-person-cse", "dp2-person", "dp2-face", "sg-gan"}


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    path = tmp_path / "own.ckpt"
    path.write_bytes(b"own training")
    return path


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A file that counts as the published `dp2-face` in `TABLE`: its real bytes cannot be had."""
    path = tmp_path / "face.ckpt"
    path.write_bytes(b"published")
    return path


TABLE = configs()
TABLE["dp2-face"] = dataclasses.replace(TABLE["dp2-face"], md5=hashlib.md5(b"published").hexdigest())


def refused(export: str, path: Path, name: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        choose_config(export, path, name, TABLE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_published_settings_are_those_of_the_published_code() -> None:
    table = {
        name: (config.image_size, config.levels, config.embedding_channels, config.md5)
        for name, config in configs().items()
    }
    assert table == {
        "dp2-person-cse": ((288, 160), 6, 16, "3411478b5ec600a4219cccf4499732bd"),
        "dp2-person": ((288, 160), 6, 0, "fda0d809741bc67487abada793975c37"),
        "dp2-face": ((256, 256), 6, 0, "e8e32190528af2ed75f0cb792b7f2b07"),
        "dp2-face-128": ((128, 128), 5, 0, "bccd4403e7c9bca682566ff3319e8176"),
        "sg-gan": ((288, 160), 4, 16, None),
        "sg-gan-d": ((288, 160), 4, 16, None),
    }
    fixed = {config.name: config.fix_errors for config in configs().values() if isinstance(config, UnetConfig)}
    assert fixed == {"dp2-person-cse": True, "dp2-person": False, "dp2-face": True, "dp2-face-128": True}
    assert {config.name for config in configs().values() if isinstance(config, SurfaceConfig)} == {"sg-gan", "sg-gan-d"}
    assert {config.conv_clamp for config in configs().values()} == {256.0}


@pytest.mark.parametrize("config", configs().values(), ids=lambda config: config.name)
def test_every_config_says_where_it_comes_from_and_what_may_be_done(config: Config) -> None:
    assert config.export in VERBS
    assert config.licence
    assert config.homepage.startswith("https://")
    assert all(source.startswith("https://") for source in config.sources)
    assert config.sources or config.md5 is None
    assert config.kinds == (("face",) if "face" in config.name else ("person",))


def test_every_bundle_that_can_be_exported_has_its_published_checkpoint() -> None:
    detectors = detector_configs()
    verbs = VERBS | {config.export for config in detectors.values()} | {NAME}
    assert set(checkpoints()) == verbs
    for name, checkpoint in checkpoints().items():
        if name in VERBS:
            assert configs(name)[checkpoint.config].sources == (checkpoint.url,)
        elif name != NAME:
            assert detector_configs(name)[checkpoint.config].source == checkpoint.url


def test_the_verb_names_the_configs_that_fit() -> None:
    assert {config.export for config in configs().values()} == VERBS
    assert list(configs("dp2-face")) == ["dp2-face", "dp2-face-128"]
    assert list(configs("sg-gan")) == ["sg-gan", "sg-gan-d"]


def test_a_published_file_is_recognised_by_its_hash(known: Path) -> None:
    assert choose_config("dp2-face", known, None, TABLE).config.name == "dp2-face"
    assert choose_config("dp2-face", known, "dp2-face", TABLE).config.name == "dp2-face"


def test_a_config_that_contradicts_a_known_hash_is_refused(known: Path) -> None:
    message = refused("dp2-face", known, "dp2-face-128")
    assert "is the published dp2-face, not dp2-face-128" in message
    assert "leave --config away" in message


def test_a_known_file_of_another_verb_is_refused(known: Path) -> None:
    assert "standin export dp2-face" in refused("dp2-person", known)
    assert "standin export dp2-face" in refused("dp2-person", known, "dp2-person")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_an_unknown_file_needs_a_config_by_name(unknown: Path, verb: str) -> None:
    message = refused(verb, unknown)
    assert "--config NAME" in message
    for name in configs(verb):
        assert name in message
        assert choose_config(verb, unknown, name) == Choice(configs()[name], published=False)


def test_a_config_of_another_verb_is_refused(unknown: Path) -> None:
    assert "standin export sg-gan" in refused("dp2-face", unknown, "sg-gan")
    assert "choose from: dp2-face, dp2-face-128" in refused("dp2-face", unknown, "nonsense")
    assert "known are: dp2-person-cse" in refused("nonsense", unknown)


def test_a_file_that_is_not_there_is_said_before_its_config_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not there"):
        choose_config("dp2-face", tmp_path / "missing.ckpt")
