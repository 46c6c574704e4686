"""What results depend on, how long files are, and how fast they will be done."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engines.errors import UsageError
from engines.store import Store
from stream.assemble import find_bundles
from stream.batch.inputs import Found
from stream.batch.manifest import Entry, Manifest
from stream.batch.plan import anywhere, count_frames, look_at_lengths, sample_speed, settings_key
from stream.config import RunSettings, make_settings
from tests.command import FACE
from tests.fakes import install_bundle, noise, write_lossless


def settings(**values: Any) -> RunSettings:
    return make_settings(RunSettings, {"preset": "faces"} | values)


def test_the_key_says_all_that_results_depend_on_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x0,y0,x1,y1\n1,1,9,9\n")
    (tmp_path / "b.csv").write_text("x0,y0,x1,y1\n1,1,9,9\n")
    regions = tmp_path / "a.csv"
    base = settings_key(settings(regions=regions), ())
    for same in ({"threads": 3}, {"device": "openvino"}, {"overwrite": True}, {"regions": tmp_path / "b.csv"}):
        assert settings_key(settings(**{"regions": regions} | same), ()) == base
    others = (
        {"seed": 1},
        {"face": "mask"},
        {"crf": 30},
        {"hold": 3},
        {"audio": "keep"},
        {"regions": None},
        {"start": 1},
    )
    keys = {settings_key(settings(**{"regions": regions} | other), ()) for other in others}
    assert len(keys | {base}) == len(others) + 1
    assert settings_key(settings(regions=regions), (), reports=True) != base
    regions.write_text("x0,y0,x1,y1\n2,2,9,9\n")
    assert settings_key(settings(regions=regions), ()) != base
    with pytest.raises(UsageError, match="cannot read"):
        settings_key(settings(regions=tmp_path / "none.csv"), ())


def test_another_engine_is_another_key(tmp_path: Path) -> None:
    install_bundle(tmp_path / "one", FACE)
    install_bundle(tmp_path / "two", (1, 1, 9, 9))
    keys = {settings_key(settings(), find_bundles(settings(), Store(tmp_path / name)).all) for name in ("one", "two")}
    assert len(keys) == 2


def test_paths_mean_the_same_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    moved = anywhere(settings(regions="r.csv", engine=["centerface=mine"], detector=["centerface", "./bundles/other"]))
    assert moved.regions == tmp_path / "r.csv"
    assert dict(moved.engine) == {"centerface": tmp_path / "mine"}
    assert moved.detector == ("centerface", str(tmp_path / "bundles/other"))


def test_lengths_are_what_containers_say(tmp_path: Path) -> None:
    clip = write_lossless(tmp_path / "a.mkv", noise(25))
    assert count_frames(clip) == pytest.approx(25, abs=1)
    (tmp_path / "b.mp4").write_text("no video")
    assert count_frames(tmp_path / "b.mp4") is None
    assert count_frames(tmp_path / "c.png") == 1
    with closing(Manifest(tmp_path / "m", tmp_path / "out")) as manifest:
        items = [Found("a.mkv", str(clip), 10, "m"), Found("b.mp4", str(tmp_path / "b.mp4"), 1000, "m")]
        manifest.begin(items, "key", overwrite=False)
        look_at_lengths(manifest)
        assert manifest.left() == pytest.approx(25 + 2500, rel=0.1)


def test_speed_is_measured_on_the_beginning_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_bundle(tmp_path / "home", FACE)
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "home"))
    clip = write_lossless(tmp_path / "a.mkv", noise(200))
    before = set(tmp_path.iterdir())
    assert sample_speed(Entry("a.mkv", str(clip), None), settings(threads=1)) > 1
    assert set(tmp_path.iterdir()) == before
