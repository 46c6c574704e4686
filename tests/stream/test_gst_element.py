"""The element in real pipelines: what goes in comes out anonymized, and nothing raw comes out of any fault.

Every test runs `gst-launch-1.0` with a registry of its own. They are skipped where GStreamer, its Python bindings or
the plugin loader are not installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.stream.gst_pipelines import COUNT, FACE, HEIGHT, SOURCE, WIDTH, Pipelines, open_pipelines


@pytest.fixture
def pipelines(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    return open_pipelines(tmp_path, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The pictures of `SOURCE`."""
    return open_pipelines(tmp_path_factory.mktemp("raw"), tmp_path_factory.getbasetemp()).pictures(SOURCE)[0]


def test_the_element_is_found_with_a_property_for_every_setting(pipelines: Pipelines) -> None:
    done = subprocess.run(
        ["gst-inspect-1.0", "standin"],
        env=pipelines.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Replaces the people in video" in done.stdout
    for name in ("preset", "mask-margin", "on-failure", "lookahead"):
        assert re.search(rf"^  {name} +:", done.stdout, re.MULTILINE)


def test_it_loads_where_python_s_tls_does_not(pipelines: Pipelines) -> None:
    # The loader's Python is Debian's; another's compiled modules of the same version may lack a symbol there.
    line = "import sys; sys.modules['_ssl'] = None; import stream.gst_element"
    subprocess.run([sys.executable, "-c", line], env=pipelines.environment, check=True, timeout=60)


def test_faces_are_covered_and_the_rest_is_as_it_was(raw: list[np.ndarray], pipelines: Pipelines) -> None:
    made, done = pipelines.pictures(f"{SOURCE} ! {pipelines.element()}")
    assert done.returncode == 0, done.stderr
    assert len(raw) == len(made) == COUNT
    x0, y0, x1, y1 = FACE
    for before, after in zip(raw, made, strict=True):
        assert not after[y0:y1, x0:x1].any()
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[y0:y1, x0:x1] = False
        assert np.array_equal(before[outside], after[outside])
    assert f"frames=(int){COUNT}, withheld=(int)0, dropped=(int)0" in done.stdout


def test_time_stamps_and_their_order_stay(pipelines: Pipelines) -> None:
    stamps = [
        re.findall(r"pts: ([\d:.]+), duration: ([\d:.]+)", pipelines.run(f"{line} ! fakesink silent=false -v").stdout)
        for line in (SOURCE, f"{SOURCE} ! {pipelines.element()}")
    ]
    assert len(stamps[0]) == COUNT
    assert stamps[0] == stamps[1]


def test_lookahead_is_answered_as_latency(pipelines: Pipelines) -> None:
    script = """
import sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
pipeline = Gst.parse_launch(sys.argv[1])
pipeline.set_state(Gst.State.PAUSED)
pipeline.get_state(20 * Gst.SECOND)
query = Gst.Query.new_latency()
assert pipeline.get_by_name("s").get_static_pad("src").query(query)
print(query.parse_latency()[1])
pipeline.set_state(Gst.State.NULL)
"""
    found = []
    for lookahead in (0, 4):
        line = f"{SOURCE} ! standin name=s detector={pipelines.detector} lookahead={lookahead} ! fakesink"
        found.append(int(pipelines.script(script, line).split()[-1]))
    assert found[1] - found[0] == 5 * 10**8


@pytest.mark.parametrize(
    ("more", "message"),
    [("preset=nonsense", "unknown preset"), ("hold=-1", "hold"), ("detector=/nowhere", "nowhere")],
)
def test_what_cannot_be_is_an_error_on_the_bus(more: str, message: str, pipelines: Pipelines) -> None:
    done = pipelines.run(f"{SOURCE} ! standin {more} ! fakesink")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_the_next_element_s_format_is_asked_for(pipelines: Pipelines) -> None:
    source = SOURCE.replace("format=RGB,", "")
    done = pipelines.run(f"{source} ! {pipelines.element()} ! video/x-raw,format=NV12 ! fakesink -v")
    assert done.returncode == 0, done.stderr
    assert "NV12" in done.stdout


@pytest.mark.parametrize("name", ["I420", "NV12", "YUY2", "BGRx", "GRAY8"])
def test_usual_formats_are_taken(name: str, pipelines: Pipelines) -> None:
    source = SOURCE.replace("format=RGB", f"format={name}")
    convert = f"videoconvert ! video/x-raw,format=RGB,width={WIDTH},height={HEIGHT}"
    made, done = pipelines.pictures(f"{source} ! {pipelines.element()} ! {convert}")
    assert done.returncode == 0, done.stderr
    assert len(made) == COUNT
    x0, y0, x1, y1 = FACE
    assert all(picture[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].max() <= 3 for picture in made)
