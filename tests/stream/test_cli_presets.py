"""Presets with generators on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command import Standin
from tests.detector_bundles import install_presets
from tests.fakes import noise, read_pictures, write_lossless
from tests.generator_bundles import write_unet

pytestmark = pytest.mark.usefixtures("at_home")

COUNT = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    install_presets(home)
    return home


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lossless(tmp_path_factory.mktemp("clips") / "in.mkv", noise(COUNT, 320, 180))


def test_a_preset_replaces_people_and_says_how_many(standin: Standin, clip: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out.mkv", tmp_path / "report.json"
    ended = standin("run", clip, out, "--preset", "deepprivacy2", "--codec", "ffv1", "--report", report)
    assert ended.code == 0
    assert f"{5 * COUNT} regions; the others are covered classically" in " ".join(ended.err.split())
    assert len(read_pictures(out)) == COUNT
    written = json.loads(report.read_text())
    assert [frame["generated"] for frame in written["frames"]] == [5] * COUNT
    assert {bundle["name"] for bundle in written["bundles"]} >= {"maskrcnn", "cse", "dsfd", "tiny-unet"}


def test_the_same_seed_gives_the_same_clip(standin: Standin, clip: Path, tmp_path: Path) -> None:
    outs = [tmp_path / f"{name}.mkv" for name in ("one", "two", "other")]
    for out, seed in zip(outs, (4, 4, 5), strict=True):
        ended = standin("run", clip, out, "--preset", "sg-gan", "--codec", "ffv1", "--seed", seed, "--quiet")
        assert ended.code == 0
    one, two, other = (np.stack(read_pictures(out)) for out in outs)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_published_context_warns(
    standin: Standin, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for context, warned in (("published", True), ("private", False)):
        caplog.clear()
        options = ("--preset", "deepprivacy2-face", "--context", context, "--quiet", "--overwrite")
        assert standin("run", clip, tmp_path / "out.mkv", *options).code == 0
        assert ("people who are still raw" in caplog.text) == warned


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--preset", "people"), 1, "preset people: bundle 'fastestdet' is not installed"),
        (
            ("--preset", "sg-gan", "--engine", "sggan=x"),
            2,
            "--engine sggan: nothing goes by that name here: did you mean",
        ),
        (("--preset", "sg-gan", "--engine", "person-cse"), 2, "'person-cse' is not NAME=FOLDER"),
        (("--preset", "sg-gan", "--engine", "person-cse=nowhere"), 1, "nowhere"),
        (("--preset", "sg-gan", "--face", "realistic"), 2, "has no generator for faces"),
        (("--preset", "faces", "--plate", "realistic"), 2, "there is no generator for plates"),
        (("--preset", "sg-gan", "--seed", "-1"), 2, "seed"),
        (("--preset", "sg-gan", "--detections", "."), 2, "."),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    options: tuple[str, ...], code: int, message: str, standin: Standin, clip: Path, tmp_path: Path
) -> None:
    ended = standin("run", clip, tmp_path / "out.mkv", *options)
    assert message in ended.line()
    assert ended.code == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("person", "dp2-person-cse", "takes a body surface, which person lacks"),
        ("person-cse", "dp2-person", "takes no body surface, which person-cse has"),
        ("person", "dp2-face", "generates face; person needs a generator for persons"),
        ("face", "maskrcnn", "finds person; face needs a generator for faces"),
        ("cse", "dp2-face", "finds nothing: it is no detector"),
    ],
)
def test_a_bundle_of_another_role_is_refused(
    role: str, name: str, message: str, standin: Standin, store: Path, clip: Path, tmp_path: Path
) -> None:
    options = ("--preset", "deepprivacy2", "--engine", f"{role}={store / 'bundles' / name}")
    ended = standin("run", clip, tmp_path / "out.mkv", *options)
    assert ended.code == 2
    assert message in ended.line()
    assert list(tmp_path.iterdir()) == []


def test_a_generator_without_its_surface_is_refused(standin: Standin, clip: Path, tmp_path: Path) -> None:
    bare = write_unet(tmp_path / "bare", surface=True, embeddings=False)
    options = ("--preset", "deepprivacy2", "--engine", f"person-cse={bare.path}")
    ended = standin("run", clip, tmp_path / "out.mkv", *options)
    assert (ended.code, "export it again with --surface" in ended.line()) == (2, True)
