"""Presets: the bundles of a run and the settings that go with them, by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from engines.errors import UsageError
from stream.roles import Role


class Preset(BaseModel):
    """The bundles of one run.

    Attributes:
        detectors: names of detection bundles; what any of them finds counts.
        joins: names of detection bundles that look as well where they are installed, and are not missed where not.
        generators: names of generation bundles, by what they replace.
        settings: what the run is told unless the user says otherwise (fields of `AnonymizerSettings`).
        about: one line for humans.
    """

    model_config = ConfigDict(frozen=True)

    detectors: tuple[str, ...]
    joins: tuple[str, ...] = ()
    generators: Mapping[Role, str] = {}
    settings: Mapping[str, Any] = {}
    about: str


#: Generators for what is to be realistic where the preset names none.
GENERATORS: Mapping[Role, str] = {"face": "dp2-face", "person": "dp2-person", "person-cse": "dp2-person-cse"}

#: The size that the published detectors look at. Networks of this size take seconds a frame where there is no GPU. The
#: threshold stays ours, though the published one is 0.3: more is found.
_PUBLISHED: Mapping[str, Any] = {"detect_size": 1333, "deadline": 600.0}

#: How the starter set runs. It is small, so what is doubtful counts as a person's, and what gets no stand-in leaves
#: nothing but grey.
_CAUTIOUS: Mapping[str, Any] = {
    "face": "mask",
    "fallback": "mask",
    "mask_colour": "#808080",
    "threshold": 0.2,
    "truncation": 1.0,
    "mask_margin": 0.1,
    "mask_frames": 4,
    "join_faces": True,
}

#: The preset of a run that names none.
DEFAULT_PRESET = "starter"
#: Taken where detectors are given and no preset: everything that they find is covered classically.
CLASSICAL_PRESET = "faces"

PRESETS: Mapping[str, Preset] = {
    "starter": Preset(
        detectors=("starter-detector",),
        joins=("centerface",),
        generators={"person-cse": "starter-generator"},
        settings={**_CAUTIOUS, "person": "realistic"},
        about="persons, found and replaced by engines that come with the project; faces, and whoever gets no stand-in, "
        "covered with grey",
    ),
    "faces": Preset(detectors=("centerface",), about="faces, found by CenterFace, covered classically"),
    "people": Preset(
        detectors=("fastestdet", "centerface"),
        about="persons, found by FastestDet, and faces, found by CenterFace, covered classically",
    ),
    "deepprivacy2": Preset(
        detectors=("maskrcnn", "cse", "dsfd"),
        generators=GENERATORS,
        settings={**_PUBLISHED, "person": "realistic", "face": "realistic"},
        about="persons and faces, found by Mask R-CNN, CSE and DSFD, replaced by DeepPrivacy2's stand-ins",
    ),
    "deepprivacy2-face": Preset(
        detectors=("dsfd",),
        generators={"face": "dp2-face"},
        settings={**_PUBLISHED, "face": "realistic"},
        about="faces, found by DSFD, replaced by DeepPrivacy2's stand-ins",
    ),
    "sg-gan": Preset(
        detectors=("maskrcnn", "cse", "centerface"),
        generators={"person-cse": "sg-gan"},
        settings={**_PUBLISHED, "person": "realistic"},
        about="persons, found by Mask R-CNN and CSE, replaced by SG-GAN's stand-ins; other persons, and faces found by "
        "CenterFace, covered classically",
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UsageError: no such preset; the message names the closest one.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}: {did_you_mean(name, PRESETS)}")
    return PRESETS[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest of the known names, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(names)}"
