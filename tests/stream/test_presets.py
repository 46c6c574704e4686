"""Presets by name."""

from __future__ import annotations

import numpy as np
import pytest

from engines.built_in import built_in
from engines.checkpoints import checkpoints
from engines.errors import UsageError
from engines.registry import artefacts
from stream.assemble import make_fills
from stream.config import AnonymizerSettings, make_settings
from stream.presets import DEFAULT_PRESET, GENERATORS, PRESETS, did_you_mean, find_preset
from stream.regions import Kind
from tests.command import ROOT


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_and_says_what_it_is(name: str) -> None:
    preset = find_preset(name)
    assert preset.detectors
    assert preset.about


@pytest.mark.parametrize("name", PRESETS)
def test_every_bundle_of_a_preset_is_built_in_or_can_be_pulled_or_exported(name: str) -> None:
    preset = PRESETS[name]
    known = {*built_in(), *artefacts(), *checkpoints()}
    assert {*preset.detectors, *preset.joins, *preset.generators.values(), *GENERATORS.values()} <= known
    assert not set(preset.joins) & set(preset.detectors)


def test_the_default_is_a_preset_and_the_one_that_the_documents_name() -> None:
    assert DEFAULT_PRESET in PRESETS
    page = (ROOT / "docs" / "run.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| `--preset NAME`"))
    assert row.endswith(f"| `{DEFAULT_PRESET}` |")


def test_the_starter_set_needs_nothing_that_has_to_be_fetched_and_leaves_grey_where_it_knows_no_better() -> None:
    preset = PRESETS["starter"]
    assert {*preset.detectors, *preset.generators.values()} == set(built_in())
    settings = make_settings(AnonymizerSettings, {"preset": "starter"})
    fills = make_fills(settings)
    patch = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert all((fills[kind](patch) == 128).all() for kind in Kind)
    assert settings.join_faces
    assert settings.mask_margin > 0
    assert settings.mask_frames > 0


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_sets_are_settings(name: str) -> None:
    preset = PRESETS[name]
    assert set(preset.settings) <= set(AnonymizerSettings.model_fields)
    # Realistic is what there is a generator for.
    realistic = {kind for kind, value in preset.settings.items() if value == "realistic"}
    assert realistic == {role.removesuffix("-cse") for role in preset.generators}


def test_an_unknown_preset_names_the_closest() -> None:
    with pytest.raises(UsageError, match="unknown preset 'deepprivacy': did you mean 'deepprivacy2'"):
        find_preset("deepprivacy")


def test_what_is_close_to_nothing_gets_them_all() -> None:
    assert did_you_mean("xyz", ["b", "a"]) == "choose from a, b"
