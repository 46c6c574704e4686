from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.papers_networks import _colours
from stream.evaluate.synthetic import draw_look, shot
from stream.networks import parse_network
from stream.perception import VectorNetwork

pytest.importorskip("onnxruntime", reason="networks run in ONNX Runtime")


def test_the_network_of_colours_knows_clothes_again_in_other_light(tmp_path: Path) -> None:
    onnx.save(_colours(), tmp_path / "colours.onnx")
    network = VectorNetwork(parse_network(f"{tmp_path / 'colours.onnx'},mean=0,std=1", "--identity"), "--identity")
    people = [draw_look(np.random.default_rng(seed)) for seed in range(6)]
    first, second = (
        np.stack([network.identity(shot(look, camera, np.random.default_rng(camera))) for look in people])
        for camera in (0, 1)
    )
    assert first.shape == (6, 24)
    assert ((first @ second.T).argmax(axis=1) == np.arange(6)).all()
