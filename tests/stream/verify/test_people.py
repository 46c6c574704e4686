from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engines.errors import BundleMissingError, UsageError
from engines.registry import Artefact
from engines.store import Store
from stream.assemble import Bundles, open_detector
from stream.config import AnonymizerSettings
from stream.detectors.base import Detector
from stream.frame import Frame
from stream.regions import Kind
from stream.verify.people import Lookout, LookSettings, choose_detectors, found_again, seen_in_either
from tests.stream.verify.clips import FIRST, SECOND, Box, face_regions, following, moved, scene

pytest.importorskip("onnxruntime", reason="detectors run in ONNX Runtime")
HEAD: Box = (0, 0, 90, 100)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "home", known={}, built_in=tmp_path / "none")
    following(found.path("first"), "first", (FIRST, SECOND))
    following(found.path("second"), "second", (HEAD,), ("face", "person"))
    following(found.path("plates"), "plates", (HEAD,), ("plate",))
    return found


def names(settings: LookSettings, store: Store, *of_the_run: str) -> list[str]:
    return [bundle.manifest.name for bundle in choose_detectors(settings, store, of_the_run)]


def test_all_that_are_there_look_but_those_of_the_run_and_those_for_other_things(store: Store) -> None:
    assert names(LookSettings(), store) == ["first", "second"]
    assert names(LookSettings(), store, "first") == ["second"]
    assert names(LookSettings(kinds=(Kind.PERSON,)), store) == ["second"]


def test_named_ones_look_whatever_the_run_had(store: Store, tmp_path: Path) -> None:
    own = following(tmp_path / "own", "own", (FIRST,))
    assert names(LookSettings(("first", str(own.path))), store, "first") == ["first", "own"]


def test_a_bundle_that_is_not_intact_is_left_out_with_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (store.path("second") / "detector.onnx").write_bytes(b"changed")
    with caplog.at_level(logging.WARNING):
        assert names(LookSettings(kinds=(Kind.FACE,)), store) == ["first"]
    assert "was changed" in caplog.text


def test_no_detector_is_one_clear_line(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no detector for faces and persons here beside those of the run \(first, se"):
        names(LookSettings(), store, "first", "second")
    with pytest.raises(UsageError, match="plates finds no faces and persons"):
        names(LookSettings(("plates",)), store)
    with pytest.raises((UsageError, BundleMissingError), match="nobody"):
        names(LookSettings(("nobody",)), store)


def test_somebody_must_look_for_every_kind(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no detector for persons here .* or look for faces alone: --kind face$"):
        names(LookSettings(), store, "second")
    known = {
        name: Artefact(name, "0" * 64, 1, "MIT", "https://example.org", (), "none", "", kinds)
        for name, kinds in (("faces", ("face",)), ("all", ("face", "person")))
    }
    there = Store(tmp_path / "home", known=known, built_in=tmp_path / "none")
    with pytest.raises(UsageError, match="or get one: standin engines pull all,"):
        names(LookSettings(), there, "second")
    with pytest.raises(UsageError, match="no detector for persons"):
        names(LookSettings(("first",), (Kind.FACE, Kind.PERSON)), store)


def test_who_was_named_looks_for_what_it_finds(store: Store) -> None:
    settings = LookSettings(("first",))
    opened = Lookout(choose_detectors(settings, store), settings)
    assert opened.kinds == (Kind.FACE,)
    opened.close()


@pytest.fixture
def lookout(store: Store) -> Iterator[Lookout]:
    settings = LookSettings()
    opened = Lookout(choose_detectors(settings, store), settings)
    yield opened
    opened.close()


def test_a_head_round_a_face_is_the_same_person(lookout: Lookout) -> None:
    found = lookout.look(Frame(scene(3)))
    assert found is not None
    assert np.allclose(found.boxes, [moved(FIRST, 3), moved(SECOND, 3)], atol=0.5)


def test_what_is_not_looked_for_is_not_found(store: Store) -> None:
    settings = LookSettings(("second",), (Kind.PERSON,))
    persons = Lookout(choose_detectors(settings, store), settings)
    found = persons.look(Frame(scene(0)))
    persons.close()
    assert found is not None
    assert len(found) == 0


def test_who_judges_looks_as_closely_as_is_wanted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def opened(bundles: Bundles, settings: AnonymizerSettings, threads: int | None) -> Detector:
        asked.append(settings)
        return open_detector(bundles, settings, threads)

    monkeypatch.setattr("stream.verify.people.open_detector", opened)
    for settings in (LookSettings(("first",)), LookSettings(("first",), detect_size=320, tiles=3)):
        Lookout(choose_detectors(settings, store), settings).close()
    assert [(settings.detect_size, settings.tiles) for settings in asked] == [(1280, 1), (320, 3)]


def test_an_answer_that_cannot_be_trusted_is_none(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    following(store.path("broken"), "broken", [(float("nan"), 0, 1, 1)])
    settings = LookSettings(("broken",))
    broken = Lookout(choose_detectors(settings, store), settings)
    with caplog.at_level(logging.WARNING):
        assert broken.look(Frame(scene(0))) is None
    broken.close()
    assert "could not be looked at" in caplog.text


def test_what_is_at_the_same_place_was_found_again() -> None:
    before, after = face_regions(FIRST, SECOND), face_regions(moved(SECOND, 3))
    assert found_again(before, after).tolist() == [False, True]
    assert found_again(before, face_regions()).tolist() == [False, False]
    assert found_again(face_regions(), after).tolist() == []


def test_what_is_found_in_the_output_alone_comes_after_what_is_found_before() -> None:
    before, after = face_regions(FIRST), face_regions((FIRST[0] + 3, *FIRST[1:]), SECOND)
    both = seen_in_either(before, after)
    np.testing.assert_array_equal(both.boxes, np.array([FIRST, SECOND], np.float32))
    assert len(seen_in_either(face_regions(), after)) == 2
    assert len(seen_in_either(before, face_regions())) == 1
