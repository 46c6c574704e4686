from __future__ import annotations

import re
import shlex

import pytest

from engines.checkpoints import Checkpoint, checkpoints, how_to_make, published
from engines.registry import artefacts

NAMES = ("dp2-person-cse", "dp2-person", "dp2-face", "sg-gan", "maskrcnn", "cse", "dsfd")


def test_every_exported_bundle_has_its_checkpoint() -> None:
    assert set(checkpoints()) == set(NAMES)
    assert not set(NAMES) & set(artefacts())


@pytest.mark.parametrize("checkpoint", checkpoints().values(), ids=lambda checkpoint: checkpoint.name)
def test_every_checkpoint_is_complete(checkpoint: Checkpoint) -> None:
    assert checkpoint.url.startswith("https://")
    assert checkpoint.md5 is None or len(bytes.fromhex(checkpoint.md5)) == 16
    assert checkpoint.licence
    assert checkpoint.about
    assert checkpoint.kinds in (("person",), ("face",))
    assert shlex.split(checkpoint.command)[:5] == ["standin", "export", checkpoint.name, "--checkpoint", "FILE"]


@pytest.mark.parametrize("name", ["maskrcnn", "cse"])
def test_the_checkpoint_of_a_name_is_the_one_of_the_published_pipelines(name: str) -> None:
    assert "_101_" in checkpoints()[name].config


def test_a_config_finds_its_checkpoint_whether_or_not_it_is_the_name_s_first() -> None:
    face, small = published("dp2-face"), published("dp2-face-128")
    assert face == checkpoints()["dp2-face"]
    assert small is not None
    assert (small.name, small.md5) == ("dp2-face", "bccd4403e7c9bca682566ff3319e8176")
    assert published("sg-gan-d") is None


@pytest.mark.parametrize("name", NAMES)
def test_how_to_make_says_in_one_line_what_to_get_and_what_to_run(name: str) -> None:
    line, checkpoint = how_to_make(name), checkpoints()[name]
    assert "\n" not in line
    assert checkpoint.url in line
    assert checkpoint.command in line
    assert (checkpoint.md5 or "unverified") in line
    assert 'pip install "standin[export]"' in line


def test_how_to_make_says_where_the_surface_is() -> None:
    surface = re.escape(checkpoints()["cse"].url)
    for name in ("dp2-person-cse", "sg-gan"):
        assert re.search(rf"--surface CSE_CHECKPOINT \(CSE_CHECKPOINT is {surface}\)", how_to_make(name))
    assert "CSE_CHECKPOINT" not in how_to_make("dp2-person")


def test_what_is_not_exported_is_not_made() -> None:
    with pytest.raises(KeyError):
        how_to_make("centerface")
