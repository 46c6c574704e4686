"""What is computed beside the networks: the benchmark on the processor, where a graph gives what the host gives."""

from __future__ import annotations

from benchmarks.beside_networks import measure


def test_both_ways_agree_and_are_timed() -> None:
    pictures, limited, crop, answer, search, *inputs = measure("cpu", 2, height=270, vertices=500)
    assert pictures["operation"] == "the input of a detector in two stages of 480x270"
    assert limited["operation"] == "the input of a detector in one stage of 480x270"
    assert crop["operation"] == "a crop of 101x168"
    assert answer["operation"] == "an answer to 101x168"
    assert all(row["within_2_levels"] == 1 for row in (pictures, limited, crop, answer))
    assert search["operation"] == "nearest of 500 vertices for 16128 pixels"
    assert search["same_vertex"] > 0.99
    assert [row["operation"] for row in inputs] == [
        f"what {name} is shown of a crop" for name in ("DeepPrivacy2", "SG-GAN")
    ]
    assert all(row["within_2_levels"] == 1 for row in inputs)
    assert all(
        row[name] > 0 for row in (pictures, limited, crop, answer, search, *inputs) for name in ("host_ms", "graph_ms")
    )
