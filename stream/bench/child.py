"""The process that measures one case: `python -m stream.bench.child`, with a job on standard input.

A process of its own, so that start-up and memory are those of one case alone, and a crash is a result like others.
"""

from __future__ import annotations

import logging
import os
import sys

from pydantic import BaseModel, ConfigDict

from engines.errors import DeviceMissingError, StandinError
from engines.own_process import dump_no_core, end_with_parent
from stream.bench.measure import Job, measure
from stream.bench.records import Result


class Answer(BaseModel):
    """What a measuring process found.

    Attributes:
        result: figures, or the reason why there are none.
        no_device: whether the reason is that the device cannot be used here, whatever the case.
    """

    model_config = ConfigDict(frozen=True)

    result: Result
    no_device: bool = False


def main() -> None:
    """Measure, and leave the answer in the job's file."""
    job = Job.model_validate_json(sys.stdin.buffer.read())
    dump_no_core()
    end_with_parent(job.parent)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    job.answer.write_text(answer(job).model_dump_json(), encoding="utf-8")


def answer(job: Job) -> Answer:
    """What is found, or why nothing is."""
    try:
        return Answer(result=Result(case=job.case, figures=measure(job)))
    except (StandinError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        # A plan that is missing or memory that lacks says nothing of other cases.
        no_device = isinstance(error, DeviceMissingError)
        return Answer(result=Result(case=job.case, reason=reason), no_device=no_device)


if __name__ == "__main__":
    main()
    # Threads of an engine that hung would keep the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
