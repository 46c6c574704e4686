"""Presets by name."""

from __future__ import annotations

import pytest

from engines.checkpoints import checkpoints
from engines.errors import UsageError
from engines.registry import artefacts
from stream.config import AnonymizerSettings
from stream.presets import GENERATORS, PRESETS, did_you_mean, find_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_found_and_says_what_it_is(name: str) -> None:
    preset = find_preset(name)
    assert preset.detectors
    assert preset.about


@pytest.mark.parametrize("name", PRESETS)
def test_every_bundle_of_a_preset_can_be_pulled_or_exported(name: str) -> None:
    preset = PRESETS[name]
    known = {*artefacts(), *checkpoints()}
    assert {*preset.detectors, *preset.generators.values(), *GENERATORS.values()} <= known


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
