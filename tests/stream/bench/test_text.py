from __future__ import annotations

from typing import Any

import pytest

from stream.bench.records import BundleNote, Content, EngineRun, Memory, Result
from stream.bench.text import (
    NOT_MEASURED,
    amount,
    figures,
    graph,
    method,
    number,
    ran_on,
    remarks,
    seeded_bundles,
    spread,
)
from tests.stream.bench import samples as bench_samples
from tests.stream.bench.samples import case, record


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00123, "0.0012"),
        (0.5, "0.500"),
        (1.234, "1.23"),
        (56.78, "56.8"),
        (999, "999"),
        (12345.6, "12,346"),
        (-2, "-2.00"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_a_spread_shows_its_extremes_unless_there_was_one_run() -> None:
    assert spread(bench_samples.spread(10), "ms") == "10.0 ms (9.00 to 11.0)"
    assert spread(bench_samples.spread(10, runs=1)) == "10.0"


def test_what_was_not_measured_is_never_nought() -> None:
    assert spread(None) == amount(None, "W") == NOT_MEASURED
    assert amount(0, "W") == "0 W"


def test_figures_that_were_not_measured_are_there_without_a_value() -> None:
    found = {figure.name: figure.value for figure in figures(bench_samples.figures(memory=Memory(peak=5)))}
    assert found["GPU memory, peak"] is None
    assert found["memory, peak"] is not None
    assert found["tiny generator, batch 1"] is not None
    assert len(found) == len(figures(bench_samples.figures()))


def test_a_calm_measurement_of_what_was_found_needs_no_remark_but_that_of_cores() -> None:
    quiet = record()
    machine = quiet.machine.model_copy(update={"all_cores": 2, "governor": "performance"})
    assert remarks(quiet.model_copy(update={"machine": machine})) == ()


def test_what_makes_figures_doubtful_is_said() -> None:
    content = Content(persons=0, faces=0, plates=0, generated=0, withheld=7, reasons=("too many",))
    known = bench_samples.figures()
    flat_out = known.flat_out.model_copy(update={"frames": 9})
    doubtful = bench_samples.figures(content=content, flat_out=flat_out)
    made = record(Result(case=case(3), figures=doubtful))
    made = made.model_copy(
        update={
            "machine": made.machine.model_copy(update={"load": 3.0}),
            "settings": made.settings.model_copy(update={"runs": 1}),
        }
    )
    texts = "\n".join(remarks(made))
    for part in (
        "busy",
        "2 of 4 cores",
        "governor",
        "fewer than 3 runs",
        "9 frames",
        "put into",
        "7 frames were withheld",
        "too many",
    ):
        assert part in texts, part


def test_the_method_says_whether_frames_were_encoded() -> None:
    made = record()
    assert "encoded as a run does" in method(made)[0]
    thrown = made.settings.model_copy(update={"encode": False})
    assert "and not encoded;" in method(made.model_copy(update={"settings": thrown}))[0]


def test_random_weights_are_named() -> None:
    notes = (BundleNote(name="cse", digest="ab", weights="seeded-random-weights-cse.pth: a local file"),)
    made = record(Result(case=case(), figures=bench_samples.figures(bundles=notes)))
    assert any("random weights: cse." in text for text in remarks(made))
    assert not any("random weights" in text for text in remarks(record()))


def on_gpu(**changes: Any) -> EngineRun:
    known = bench_samples.figures().engines[0]
    return known.model_copy(update={"provider": "CUDAExecutionProvider", "tf32": False, "nodes": 40} | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "CUDA, TF32 off, 0 of 40 nodes on the CPU"),
        ({"tf32": True, "on_cpu": {"Shape": 1, "Resize": 2}}, "CUDA, TF32, 3 of 40 nodes on the CPU"),
        ({"nodes": None}, "CUDA, TF32 off"),
        ({"provider": "CPUExecutionProvider", "tf32": None, "nodes": None}, "CPU"),
    ],
)
def test_what_ran_a_graph_says_how(changes: dict[str, Any], text: str) -> None:
    assert ran_on(on_gpu(**changes)) == text


def test_a_graph_with_tf32_is_another_figure_than_without() -> None:
    runs = (on_gpu(), on_gpu(tf32=True))
    assert [graph(run) for run in runs] == ["tiny generator", "tiny generator, TF32"]
    names = [figure.name for figure in figures(bench_samples.figures(engines=runs))]
    assert len(set(names)) == len(names)


def test_rows_in_a_second_are_those_of_the_batch() -> None:
    run = on_gpu(batch=8, milliseconds=bench_samples.spread(40))
    assert run.rate is not None
    assert (run.rate.median, run.rate.runs) == (200, 3)
    assert run.rate.lowest < 200 < run.rate.highest
    assert on_gpu(batch=0).rate is None


def gpu_remarks(*runs: EngineRun, **machine: Any) -> str:
    known = record(Result(case=case(device="cuda"), figures=bench_samples.figures(engines=runs)))
    return " ".join(remarks(known.model_copy(update={"machine": known.machine.model_copy(update=machine)})))


def test_nodes_on_the_cpu_are_named_for_graphs_that_were_to_run_on_a_gpu() -> None:
    said = gpu_remarks(on_gpu(on_cpu={"Resize": 2, "Loop": 1}))
    assert "tiny generator: nodes on the CPU, each with copies before and behind it: Loop 1, Resize 2" in said
    assert "nodes on the CPU" not in gpu_remarks(on_gpu(on_cpu={}))
    assert "is not told: tiny generator" in gpu_remarks(on_gpu(nodes=None))


def test_tf32_is_explained_where_it_was_measured() -> None:
    assert "is off in whole runs" in gpu_remarks(on_gpu(tf32=True))
    assert "TF32" not in gpu_remarks(on_gpu())


def test_a_gpu_that_could_not_be_asked_is_said() -> None:
    assert "nvidia-ml-py" in gpu_remarks(on_gpu())
    assert "nvidia-ml-py" not in gpu_remarks(on_gpu(), gpu="a GPU")


def test_random_weights_are_known_by_their_label() -> None:
    note = BundleNote(name="sg-gan", digest="ab" * 32, weights="seeded-random-weights-sg-gan.pth: a local file")
    made = record(Result(case=case(), figures=bench_samples.figures(bundles=(note,))))
    assert seeded_bundles(made) == ("sg-gan",)
    assert seeded_bundles(record()) == ()
