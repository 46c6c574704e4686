"""The settings of the generator's stages; the stages themselves run in `test_whole` and `test_commands`."""

from __future__ import annotations

import pytest

from export.starter import stages_detector
from export.starter.stages_generator import training_config


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_computes_in_bfloat16_if_it_can(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_detector, "computes_bfloat16", lambda: has)
    assert training_config([], "cpu", large=False).bfloat16 == has
    assert training_config(["bfloat16=true"], "cpu", large=False).bfloat16
    assert not training_config([], "cuda", large=True).bfloat16
