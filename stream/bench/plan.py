"""Bench: measures what users of `standin run` get on a machine, case after case, each in a process of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.runtime import Device
from stream.bench.child import Answer
from stream.bench.clip import made_clip
from stream.bench.frames import clip_info
from stream.bench.machine import BY_BUS, DEVICE_ORDER, describe_machine
from stream.bench.measure import Job
from stream.bench.people import MOST_PERSONS
from stream.bench.records import Case, Clip, Record, Result, Settings
from stream.generators.open import Precision, computes
from stream.presets import DEFAULT_PRESET, find_preset
from stream.report import versions

#: Of what a process that died has said, so much is shown.
_LAST_WORDS: Final = 300
_LARGEST_BATCH: Final = 256
#: Seconds that a case may take besides its runs: large networks are opened, and some engines plan for minutes. And how
#: many times as long as it should a run may take.
_PATIENCE: Final = 7200.0
_SLACK: Final = 2

OnCase = Callable[[int, int, Case], None]


class Plan(BaseModel):
    """What is to be measured: every preset on every device in every precision with every number of persons.

    Attributes:
        presets: names.
        devices: where engines run.
        precisions: of generators.
        persons: put into every frame; None for those whom the engines find.
        batches: crops in one run of a generator by itself.
        video: of the user, None for the clip of synthetic people that comes with the project.
        size: width and height to which that clip is brought, None for its own.
        engine: folders of bundles, as in the settings of a run.
        seeded: folders of bundles with random weights, for those of these names that a preset uses.
        settings: how it is measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    presets: tuple[str, ...] = (DEFAULT_PRESET,)
    devices: tuple[Device, ...] = ("cpu",)
    precisions: tuple[Precision, ...] = ("fp32",)
    persons: tuple[int | None, ...] = (None,)
    batches: tuple[int, ...] = (1,)
    video: Path | None = None
    size: tuple[int, int] | None = None
    engine: dict[str, Path] = Field(default_factory=dict)
    seeded: dict[str, Path] = Field(default_factory=dict)
    settings: Settings = Settings(seconds=3.0, runs=3, encode=True)

    @property
    def cases(self) -> tuple[Case, ...]:
        """All that there can be, in the order in which they are measured."""
        every = itertools.product(self.presets, self.devices, self.precisions, self.persons)
        return tuple(Case(preset=p, device=d, precision=c, persons=n) for p, d, c, n in every if computes(d, c))


def bench(plan: Plan, *, on_case: OnCase | None = None) -> Record:
    """Measure all cases of a plan. What cannot be measured is in the record as well, with the reason.

    Args:
        plan: what to measure.
        on_case: called before each case with its number from 0, how many there are, and the case.

    Raises:
        SourceError: the video cannot be read.
        OSError: no process can be started.
    """
    # Other people's load is part of what a reader has to know, our own is not.
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="standin-bench-") as folder:
        scratch = Path(folder)
        video, about = (
            (plan.video, "a video of the user's") if plan.video is not None else made_clip(scratch, plan.size)
        )
        info = clip_info(video)
        results = tuple(_results(plan, video, scratch, on_case))
    return Record(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine,
        versions=versions(),
        clip=Clip(
            about=about,
            width=info.width,
            height=info.height,
            rate=float(info.rate or 0),
            frames=info.frames,
        ),
        settings=plan.settings,
        results=results,
    )


def _results(plan: Plan, video: Path, scratch: Path, on_case: OnCase | None) -> Iterator[Result]:
    """What each case gives; a device that cannot be used is not tried twice."""
    unusable: dict[Device, str] = {}
    engines_measured: set[tuple[str, Device, Precision]] = set()
    for number, case in enumerate(plan.cases):
        if on_case is not None:
            on_case(number, len(plan.cases), case)
        if case.device in unusable:
            yield Result(case=case, reason=unusable[case.device])
            continue
        # Engines by themselves do not know of persons: once is enough.
        engines = case.preset, case.device, case.precision
        job = _job(plan, case, video, scratch, with_engines=engines not in engines_measured)
        answer = _in_own_process(job)
        if answer.result.figures is not None:
            engines_measured.add(engines)
        elif answer.no_device:
            unusable[case.device] = answer.result.reason or ""
        yield answer.result


def engines_of(plan: Plan, preset: str) -> dict[str, Path]:
    """Folders of bundles for a preset; what a user gives comes before random weights."""
    used = bundle_names(preset)
    seeded = {name: folder for name, folder in plan.seeded.items() if name in used}
    return {name: folder.absolute() for name, folder in (seeded | plan.engine).items()}


def bundle_names(preset: str) -> tuple[str, ...]:
    """The bundles that a preset runs by itself."""
    found = find_preset(preset)
    return (*found.detectors, *found.generators.values())


def _job(plan: Plan, case: Case, video: Path, scratch: Path, *, with_engines: bool) -> Job:
    return Job(
        case=case,
        video=video.absolute(),
        answer=scratch / "answer.json",
        engine=engines_of(plan, case.preset),
        settings=plan.settings,
        batches=plan.batches if with_engines else (),
        started=time.monotonic(),
        parent=os.getpid(),
    )


def _in_own_process(job: Job) -> Answer:
    """What a process finds; it ends with this call, whatever happens."""
    job.answer.unlink(missing_ok=True)
    # Runs flat out, and as many at a pace.
    limit = _PATIENCE + _SLACK * 2 * job.settings.runs * job.settings.seconds
    late = False
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", "stream.bench.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            # OpenBLAS's is read once, when numpy is imported (see `stream.__main__`). CUDA would take the fastest GPU
            # first, and name, memory and power be those of another one.
            env={"OPENBLAS_NUM_THREADS": "1", DEVICE_ORDER: BY_BUS, **os.environ},
            # Not in our group: Ctrl-C is for us, and we end it.
            start_new_session=True,
        ) as process,
    ):
        try:
            process.communicate(job.model_dump_json().encode(), timeout=limit)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            process.kill()
        said.seek(0)
        words = said.read().decode("utf-8", "replace")
    try:
        return Answer.model_validate_json(job.answer.read_bytes())
    except (OSError, ValidationError):
        how = f"did not end within {limit:.0f} s" if late else f"ended with {process.returncode}"
        reason = f"the process that measured {how}: {_last(words)}"
        return Answer(result=Result(case=job.case, reason=reason))


def _last(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[-1][-_LAST_WORDS:] if lines else "it said nothing"


def check_plan(plan: Plan) -> str | None:
    """Why a plan cannot be meant, None if it can."""
    if any(persons is not None and not 0 <= persons <= MOST_PERSONS for persons in plan.persons):
        return f"persons must be 0 to {MOST_PERSONS}"
    if any(not 1 <= batch <= _LARGEST_BATCH for batch in plan.batches):
        return f"batch must be 1 to {_LARGEST_BATCH}"
    if plan.settings.tiles > 1 and any(persons is not None for persons in plan.persons):
        return "with --tiles every part of a frame would get so many persons; give --persons found"
    if plan.size is not None and plan.video is not None:
        return (
            "--size is for the clip that comes with the project; a video is measured as it is, so leave one of them out"
        )
    if plan.size is not None and any(side % 2 or not 64 <= side <= 8192 for side in plan.size):
        return "size must be even numbers from 64 to 8192"
    if not plan.cases:
        return "OpenVINO alone computes in bf16; add --device openvino"
    return None
