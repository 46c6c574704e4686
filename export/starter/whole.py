"""The whole set from nothing: every stage in order, each with its share of the minutes, and a record of it all."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import torch

from engines.errors import SourceError, UsageError
from engines.machine import processor
from export.starter import stages, stages_detector, stages_generator
from export.starter.backgrounds import read_photographs
from export.starter.detector_export import BundleOptions
from export.starter.generator_training import GENERATOR_NAME
from export.starter.scenes import SceneSettings
from export.starter.stages import Drawing
from export.starter.stages_detector import Run
from export.starter.training import CHECKPOINT_NAME, Budget

log = logging.getLogger(__name__)

RECORD_NAME: Final = "set.json"
#: Of all minutes. What is left over is for what takes as long as it takes: the body, unpacking, both bundles, sheets.
SHARES: Final[Mapping[str, float]] = {
    "scenes": 0.16,
    "held-out": 0.02,
    "detector-small": 0.2,
    "detector": 0.22,
    "evaluate-detector": 0.02,
    "portraits": 0.07,
    "held-out-portraits": 0.01,
    "crops": 0.01,
    "crops-small": 0.01,
    "generator-small": 0.1,
    "generator": 0.12,
    "evaluate-generator": 0.01,
}
#: Most is learnt from small pictures, four times as fast; what comes after has to be learnt from pictures as they are.
_DETECTOR_SMALL: Final = ("size=192,320",)
_DETECTOR_AFTER: Final = ("rate=0.0015", "augmentation.zoom=0.9,1.9")
#: However fast they are drawn: a thousand scenes take about 100 MB, and 1.2 GB unpacked.
_MOST: Final[Mapping[str, int]] = {"scenes": 40_000, "held-out": 400, "portraits": 20_000, "held-out-portraits": 200}
#: Added to the seed for what no training sees.
_HELD_OUT: Final = 1_000_003
#: Further seeds, so that portraits are of other people than scenes are.
_PORTRAITS: Final = 500_009
#: At which the network itself is measured: the score from which the preset counts somebody.
_THRESHOLD: Final = 0.2
_PACKAGES: Final = ("standin", "torch", "numpy", "scipy", "opencv-python-headless", "anny", "moderngl", "onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What set is made, and how.

    Attributes:
        output: folder of the set.
        minutes: for all of it.
        device: of the trainings, `cpu` or `cuda`.
        seed: of everything.
        body: the body's file; None for the project's.
        photographs: folder of person-free pictures; None for none.
        workers: processes that draw.
        large: the generator with twice the resolution.
        size: width and height of scenes.
        settings: of the trainings, `detector.rate=0.002` or `generator.losses.adversarial=0`.
        resume: go on with what is there.
        words: the command line, for the record.
    """

    output: Path
    minutes: float
    device: str = "cpu"
    seed: int = 0
    body: Path | None = None
    photographs: Path | None = None
    workers: int = 1
    large: bool = False
    size: tuple[int, int] = (512, 288)
    settings: Sequence[str] = ()
    resume: bool = False
    words: Sequence[str] = ()

    def settings_of(self, network: str) -> tuple[str, ...]:
        """The settings of one training, without its name."""
        start = f"{network}."
        return tuple(setting.removeprefix(start) for setting in self.settings if setting.startswith(start))


class Record:
    """What was done, in `set.json`; written after every stage.

    Args:
        plan: of the set.

    Raises:
        UsageError: the folder holds a set and is not to be resumed, or one of another seed or size.
        SourceError: its record cannot be read.
    """

    def __init__(self, plan: Plan) -> None:
        self._path = plan.output / RECORD_NAME
        self._resume = plan.resume
        self.values: dict[str, Any] = {"stages": {}}
        if self._path.exists():
            if not plan.resume:
                raise UsageError(f"{plan.output} holds a set already; add --resume, or give another folder")
            self.values = _read(self._path)
        made_with = {"seed": plan.seed, "large": plan.large, "size": list(plan.size)}
        for name, value in made_with.items():
            if self.values.setdefault(name, value) != value:
                raise UsageError(f"{plan.output} was begun with {name} {self.values[name]}, not {value}; give the same")
        self.values |= {
            "command": _command(plan.words),
            "minutes": plan.minutes,
            "device": plan.device,
            "settings": list(plan.settings),
            "machine": machine(plan.device),
            "commit": _commit(),
            "versions": _versions(),
        }

    def spent(self, name: str) -> float:
        """Minutes that a stage has taken so far."""
        return float(self.values["stages"].get(name, {}).get("minutes", 0.0))

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any] | None]:
        """One stage: a place for its figures, or None where it was finished before."""
        known = self.values["stages"].setdefault(name, {"minutes": 0.0, "finished": False})
        if known["finished"]:
            log.info("%s: done before", name)
            yield None
            return
        log.info("%s ...", name)
        before, start = known["minutes"], time.monotonic()
        try:
            yield known
            known["finished"] = True
        finally:
            known["minutes"] = round(before + (time.monotonic() - start) / 60, 3)
            self.write()

    def write(self) -> None:
        """Writes it whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".partial")
        # The stages last: they are the longest part.
        ordered = {name: value for name, value in self.values.items() if name != "stages"}
        ordered["stages"] = self.values["stages"]
        beside.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
        beside.replace(self._path)


def make_set(plan: Plan) -> None:
    """Makes the set, or goes on with it.

    Raises:
        UsageError: settings or a folder that do not fit.
        StandinError: see the stages.
        KeyboardInterrupt: it was interrupted; what is there can be resumed.
    """
    if plan.minutes <= 0:
        raise UsageError(f"--minutes {plan.minutes:g} is no time; give what the whole set may take")
    if unknown := [text for text in plan.settings if text.partition(".")[0] not in ("detector", "generator")]:
        raise UsageError(f"{unknown[0]!r} is of no training; begin it with detector. or generator.")
    stages_detector.check_device(plan.device)
    # Before hours of work: whether the settings fit.
    stages_detector.detector_options(plan.settings_of("detector"), plan.device)
    stages_generator.training_config(plan.settings_of("generator"), plan.device, large=plan.large)
    work = _Work(plan, Record(plan))
    work.draw()
    work.detector()
    work.crops()
    work.generator()
    log.info("the set is made: %s", plan.output / RECORD_NAME)


class _Work:
    """The stages with their folders."""

    def __init__(self, plan: Plan, record: Record) -> None:
        self._plan, self._record = plan, record
        self._folder = plan.output
        self._photographs = read_photographs(plan.photographs) if plan.photographs else []
        with record.stage("body"):
            self._body = stages.get_body(plan.body)
        # Also where it was made before.
        self._drawing = Drawing(
            body=self._body,
            seed=plan.seed,
            workers=plan.workers,
            settings=SceneSettings(width=plan.size[0], height=plan.size[1], photographs=self._photographs),
        )
        self._checkpoint = self._folder / "detector" / CHECKPOINT_NAME
        self._generator = self._folder / "generator" / GENERATOR_NAME

    def draw(self) -> None:
        """Scenes to learn from, and others to measure on."""
        self._scenes("scenes", self._drawing)
        self._scenes("held-out", replace(self._drawing, seed=self._plan.seed + _HELD_OUT))

    def _scenes(self, name: str, drawing: Drawing) -> None:
        with self._record.stage(name) as figures:
            if figures is not None:
                left = max(0.0, self._minutes(name) - self._record.spent(name))
                figures["seed"] = drawing.seed
                figures["scenes"] = stages.draw_scenes(
                    self._folder / name, drawing, count=_MOST[name], minutes=left, resume=self._plan.resume
                )

    def detector(self) -> None:
        """Its training, bundle and evaluation."""
        scenes, held_out = self._folder / "scenes", self._folder / "held-out"
        weights = None
        for name, settings in (("detector-small", _DETECTOR_SMALL), ("detector", _DETECTOR_AFTER)):
            with self._record.stage(name) as figures:
                if figures is not None:
                    run = self._run(name, (*settings, *self._plan.settings_of("detector")))
                    stages_detector.train_a_detector(scenes, self._body, self._folder / name, run, weights=weights)
            weights = self._folder / name / CHECKPOINT_NAME
            scenes = self._folder / name / stages_detector.PACKED_NAME
        with self._record.stage("detector-bundle") as figures:
            if figures is not None:
                stages_detector.make_detector_bundle(
                    self._checkpoint,
                    self._folder / "bundles" / BundleOptions().name,
                    BundleOptions(),
                    scenes=held_out,
                    resume=self._plan.resume,
                )
        with self._record.stage("evaluate-detector") as figures:
            if figures is not None:
                minutes = self._minutes("evaluate-detector")
                figures["figures"] = stages_detector.evaluate_detector(
                    self._checkpoint, held_out, self._body, threshold=_THRESHOLD, minutes=minutes
                )

    def crops(self) -> None:
        """Portraits, which fill the generator's crops, and what is cut from them and from the scenes."""
        views = replace(self._drawing.settings, views=("portrait",))
        portraits = replace(self._drawing, seed=self._plan.seed + _PORTRAITS, settings=views)
        self._scenes("portraits", portraits)
        self._scenes("held-out-portraits", replace(portraits, seed=portraits.seed + _HELD_OUT))
        height, width = self._crop_size
        for name, folders, size in (
            ("crops-small", ("portraits", "scenes"), (height // 2, width // 2)),
            ("crops", ("portraits", "scenes"), (height, width)),
            ("held-out-crops", ("held-out-portraits",), (height, width)),
        ):
            with self._record.stage(name) as figures:
                if figures is not None:
                    figures["crops"] = stages_generator.cut_crops(
                        [self._folder / folder for folder in folders],
                        self._folder / name,
                        size=size,
                        seed=self._plan.seed,
                        minutes=self._minutes(name),
                        resume=self._plan.resume,
                    )

    def generator(self) -> None:
        """Its training, bundle, evaluation and sheet."""
        name = stages_generator.bundle_name(large=self._plan.large)
        held_out = self._folder / "held-out-crops"
        height, width = self._crop_size
        small = f"network.image_size={height // 2},{width // 2}"
        weights = None
        for stage, crops, settings in (("generator-small", "crops-small", [small]), ("generator", "crops", [])):
            with self._record.stage(stage) as figures:
                if figures is not None:
                    stages_generator.train_a_generator(
                        self._folder / crops,
                        self._body,
                        self._checkpoint,
                        self._folder / stage,
                        self._run(stage, (*self._plan.settings_of("generator"), *settings)),
                        large=self._plan.large,
                        weights=weights,
                    )
            weights = self._folder / stage / GENERATOR_NAME
        with self._record.stage("generator-bundle") as figures:
            if figures is not None:
                stages_generator.make_generator_bundle(
                    self._generator,
                    self._checkpoint,
                    self._folder / "bundles" / name,
                    name=name,
                    resume=self._plan.resume,
                )
        with self._record.stage("evaluate-generator") as figures:
            if figures is not None:
                figures["figures"] = stages_generator.evaluate_generator(
                    self._generator, self._checkpoint, held_out, minutes=self._minutes("evaluate-generator")
                )
        with self._record.stage("sheet") as figures:
            if figures is not None:
                stages_generator.write_sample_sheet(
                    self._generator, self._checkpoint, held_out, self._folder / stages.SHEET_NAME, seed=self._plan.seed
                )

    def _minutes(self, name: str) -> float:
        return self._plan.minutes * SHARES.get(name, SHARES["crops"])

    @property
    def _crop_size(self) -> tuple[int, int]:
        settings = self._plan.settings_of("generator")
        return stages_generator.training_config(settings, self._plan.device, large=self._plan.large).network.image_size

    def _run(self, stage: str, settings: Sequence[str]) -> Run:
        return Run(
            budget=Budget(minutes=self._minutes(stage)),
            seed=self._plan.seed,
            device=self._plan.device,
            resume=self._plan.resume,
            settings=settings,
        )


def machine(device: str) -> dict[str, Any]:
    """The processor, its cores as this process may use them, and the GPU where one is used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"processor": processor(), "cores": cores, "gpu": gpu, "system": f"{platform.system()} {platform.machine()}"}


def _command(words: Sequence[str]) -> str:
    """As it was given, but for the folders above what it names: they say nothing to others."""
    return " ".join(["python -m export.starter", *(Path(word).name if "/" in word else word for word in words)])


def _commit() -> str | None:
    """The checkout's commit, with `+` where files differ from it; None where it is no checkout."""
    here = Path(__file__).parent
    try:
        asked = [
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20).stdout
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return asked[0].strip() + ("+" if asked[1].strip() else "")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values["stages"], dict):
            raise TypeError("its stages are none")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is no record of a set ({error}); give another folder") from error
    return dict(values)
