from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.bundle import open_bundle
from engines.errors import UsageError
from export import seeded
from export.configs import configs
from export.models.surface import SurfaceSpec
from export.models.unet import UnetSpec
from export.seeded import (
    LABEL,
    kept_bundle,
    published_spec,
    seeded_bundle,
    seeded_names,
    seeded_network,
    seeded_surface,
)
from stream.bench.text import SEEDED
from stream.presets import PRESETS
from tests.generator_bundles import write_unet

GENERATORS = ("dp2-person-cse", "dp2-person", "dp2-face", "sg-gan")


def test_every_network_of_the_published_presets_can_be_made() -> None:
    published = [PRESETS[name] for name in ("deepprivacy2", "deepprivacy2-face", "sg-gan")]
    wanted = {name for preset in published for name in (*preset.detectors, *preset.generators.values())}
    # CenterFace comes from the package index.
    assert wanted - {"centerface"} <= set(seeded_names())


def test_an_unknown_network_is_refused(tmp_path: Path) -> None:
    for make in (seeded_bundle, kept_bundle):
        with pytest.raises(UsageError, match="sg-gan"):
            make("sggan", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reports_know_such_bundles_by_the_label() -> None:
    assert LABEL == SEEDED


def test_the_surface_is_the_same_every_time_and_of_unit_norm() -> None:
    surface = seeded_surface()
    assert surface.shape == (27_554, 16)
    assert surface.dtype == np.float32
    assert np.allclose(np.linalg.norm(surface, axis=1), 1, atol=1e-5)
    assert np.array_equal(surface, seeded_surface())


def test_networks_have_the_published_sizes() -> None:
    unet, surface = published_spec(configs()["dp2-person-cse"]), published_spec(configs()["sg-gan"])
    assert isinstance(unet, UnetSpec)
    assert isinstance(surface, SurfaceSpec)
    assert unet.encoder[0][0] == surface.encoder[0][0] == 64
    assert max(max(pair) for pair in unet.encoder) == 512
    assert surface.vertices == 27_554


@pytest.mark.parametrize("name", GENERATORS)
def test_weights_are_the_same_every_time_and_finite(name: str) -> None:
    spec = published_spec(configs()[name], width=4, widest=8, vertices=50)
    first, second = seeded_network(spec).state_dict(), seeded_network(spec).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert all(torch.isfinite(value).all() for value in first.values())
    assert not torch.equal(first[key := next(iter(first))], torch.zeros_like(first[key]))


class Counted:
    """Makes tiny bundles instead, and counts them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, name: str, output: Path, **_: object) -> None:
        self.made.append(name)
        write_unet(output)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    monkeypatch.setattr(seeded, "seeded_bundle", maker := Counted())
    # The version that tiny bundles say they were made by.
    monkeypatch.setattr("importlib.metadata.version", lambda _: "test")
    return maker


def of_release(folder: Path, exporter: str) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"exporter": exporter}))


def test_a_bundle_is_made_once_and_kept_beside_the_stores_bundles(tmp_path: Path, counted: Counted) -> None:
    folder = kept_bundle("dp2-face", tmp_path)
    of_release(folder, "standin test, torch 1")
    assert kept_bundle("dp2-face", tmp_path) == folder
    assert counted.made == ["dp2-face"]
    assert folder.is_relative_to(tmp_path / "seeded")
    assert not (tmp_path / "bundles").exists()


def test_what_is_damaged_or_of_another_release_is_made_again(tmp_path: Path, counted: Counted) -> None:
    folder = kept_bundle("dp2-face", tmp_path)
    of_release(folder, "standin test")
    (folder / "generator.onnx").write_bytes(b"torn")
    kept_bundle("dp2-face", tmp_path)
    assert len(counted.made) == 2
    of_release(folder, "standin 0.0.1, torch 1")
    kept_bundle("dp2-face", tmp_path)
    assert len(counted.made) == 3
    of_release(folder, "standin test")
    kept_bundle("dp2-face", tmp_path)
    assert len(counted.made) == 3


@pytest.mark.slow
@pytest.mark.thorough
def test_a_published_network_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As many layers as published; that full widths go the same way is `test_full_size.py`'s business.
    monkeypatch.setattr(seeded, "published_spec", partial(published_spec, width=4, widest=8))
    bundle = open_bundle(kept_bundle("dp2-face", tmp_path))
    assert bundle.manifest.provenance.artefact.startswith(LABEL)
    assert {"mapping", "generator", "generator_fp16"} == set(bundle.manifest.graphs)
    # It passed the comparison with the published way that every export has to pass.
    assert bundle.manifest.parity
