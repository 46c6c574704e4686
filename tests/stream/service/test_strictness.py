"""Nothing that comes from outside makes a stream find or cover less than the settings in force do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from engines.errors import UsageError
from stream.config import RunSettings, Treatment, make_settings
from stream.service import strictness
from stream.service.api_values import allowed_paths, check_values
from stream.service.serve import Service
from stream.service.strictness import check_strictness
from tests.stream.service.services import write_config

#: What is in force where fields can be stricter and less strict.
BETWEEN: Mapping[str, Any] = {
    "preset": "faces",
    "face": "pixelate",
    "cells": 8,
    "threshold": 0.3,
    "margin": 0.2,
    "mask_margin": 0.1,
    "mask_frames": 4,
    "tiles": 2,
}
#: For every field that can leave somebody raw: values that find or cover less than those above, or nobody knows.
LESS: Mapping[str, tuple[Any, ...]] = {
    "audio": ("keep",),
    "blur_radius": (0.1,),
    "cells": (16,),
    "context": ("published",),
    "decoder": ("cuda",),
    "decoding": ("lenient",),
    "detect_size": (32, 1279),
    "detections": ("/d.sqlite",),
    "detector": (["centerface"], ["/mine"]),
    "engine": (["centerface=/mine"],),
    "detector_precision": ("fp32",),
    "engine_server": ("/mine.sock",),
    "face": ("keep", "blur", "realistic"),
    "fallback": ("pixelate",),
    "hold": (0, 9, False),
    "ignore_zones": ("/zones.json",),
    "join_faces": (True,),
    "lookahead": (0, 4),
    "margin": (0.0, 0.19),
    "mask_frames": (0, 3),
    "mask_margin": (0.0, 0.09),
    "metadata": ("keep",),
    "only_zones": ("/zones.json",),
    "person": ("keep", "blur", "realistic"),
    "plate": ("keep", "blur", "realistic"),
    "preset": ("people", "starter", "deepprivacy2-face"),
    "regions": (),
    "shape": ("ellipse",),
    "threshold": (1.0, 0.31, "0.31"),
    "tiles": (1,),
    "when_slow": ("classical", "lower-rate"),
}
#: Fields that can leave nobody raw, whatever they are.
HARMLESS = {
    "backend", "certificate", "codec", "connect_timeout", "contact_sheet", "crf", "deadline", "device", "end",
    "insecure", "latency_budget", "mask_colour", "on_failure", "overwrite", "precision", "private_key", "raw",
    "read_timeout", "reconnect_attempts", "remember", "report", "report_rotate", "retain", "rtsp_transport", "seed",
    "segment", "show_regions", "sink_timeout", "speed", "spool", "start", "threads", "truncation", "video_stream",
    "when_lost",
}  # fmt: skip
MORE: Mapping[str, tuple[Any, ...]] = {
    "blur_radius": (1.0,),
    "detect_size": (1280, 1920),
    "face": ("mask", "pixelate"),
    "fallback": ("mask",),
    "hold": (10, 50),
    "lookahead": (5, 8),
    "margin": (0.2, 0.5),
    "mask_frames": (4, 9),
    "mask_margin": (0.1, 0.3),
    "person": ("mask",),
    "preset": ("faces",),
    "regions": ("/more.csv",),
    "shape": ("box",),
    "threshold": (0.3, 0.05),
    "tiles": (2, 3),
    "when_slow": ("drop",),
}


def check(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """As a service does."""
    in_force = make_settings(RunSettings, defaults)
    check_strictness(make_settings(RunSettings, {**defaults, **values}), in_force)


def test_of_every_setting_somebody_has_decided_whether_it_can_leave_anybody_raw() -> None:
    known = set(RunSettings.model_fields)
    assert set(LESS) | HARMLESS == known
    assert not set(LESS) & HARMLESS
    groups = (
        strictness.FREE, strictness.NOT_BELOW, strictness.NOT_ABOVE, frozenset(strictness.STRICTEST),
        frozenset(strictness.TREATMENTS), strictness.ADDING, strictness.SAME,
    )  # fmt: skip
    assert frozenset().union(*groups) == known
    assert sum(map(len, groups)) == len(known)
    assert strictness.FREE == HARMLESS
    assert set(strictness.STRICTER) == set(get_args(Treatment))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in LESS.items() for value in values])
def test_what_finds_or_covers_less_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        check({name: value}, BETWEEN)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in MORE.items() for value in values])
def test_what_is_as_strict_or_stricter_passes(name: str, value: Any) -> None:
    check({name: value}, BETWEEN)


def test_without_defaults_the_products_count() -> None:
    for values in ({"threshold": 0.21}, {"preset": "faces"}, {"face": "blur"}, {"person": None}, {"mask_margin": 0.0}):
        with pytest.raises(UsageError):
            check(values, {})
    check({"threshold": 0.1, "preset": "starter", "seed": 3, "codec": "ffv1", "deadline": 1.0}, {})


def test_a_treatment_counts_by_what_becomes_of_each_kind() -> None:
    # Persons are covered as faces are; nobody has named them.
    with pytest.raises(UsageError, match=r"^person: mask may cover less than realistic"):
        check({"person": "mask"}, {"person": "realistic"})
    with pytest.raises(UsageError, match=r"^person: pixelate may cover less than blur"):
        check({"face": "pixelate"}, {"preset": "faces", "face": "keep"})
    check({"face": "mask"}, {"preset": "faces", "face": "keep"})


def test_regions_by_hand_are_added_and_never_taken_away() -> None:
    check({"regions": "/more.csv"}, {})
    with pytest.raises(UsageError, match="regions") as caught:
        check({"regions": "/other.csv"}, {"regions": "/private/house.csv"})
    assert "house" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"threshold": 1.0, "hold": 0}, {"detect_size": 32}, {"preset": "people"}, {"detector": "centerface"}]
)
def test_a_stream_that_nobody_is_covered_in_cannot_be_added(tmp_path: Path, values: dict[str, Any]) -> None:
    service = Service(write_config(tmp_path / "config.toml", {"front": {"input": "rtsp://a/b", "output": "a/"}}))
    given = check_values({"input": "rtsp://a/c", "output": "rtsp://b/c", **values}, allowed_paths([]))
    with pytest.raises(UsageError, match=r"in force"):
        service.add("back", given)
    assert service.overview().streams == ()
    # Without these it could be.
    service.add("back", {name: given[name] for name in ("input", "output")} | {"threshold": 0.1, "hold": 20})
    assert [stream.name for stream in service.overview().streams] == ["back"]
