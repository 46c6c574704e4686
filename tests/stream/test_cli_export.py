from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
import torch

from engines.bundle import open_bundle
from engines.store import Store
from export import configs
from export.vertex_embeddings import read_surface
from tests.command import Ended, Standin, child
from tests.export.tiny import BODY, FACE, body_checkpoint, cse_checkpoint, face_checkpoint, face_network

PROGRESS = ("reading ", "warning: ", "computing ", "exporting ", "verifying ", "writing ")
Export = Callable[..., Ended]


class Desk:
    """A folder with checkpoints, and the command."""

    def __init__(self, folder: Path, standin: Standin) -> None:
        self._standin, self.folder = standin, folder
        self.face, self.body, self.surface = folder / "face.ckpt", folder / "body.ckpt", folder / "cse.pkl"
        self.output = folder / "bundles" / "new"
        face_checkpoint(self.face)
        body_checkpoint(self.body, cse_checkpoint(self.surface))

    def export(self, name: str = "dp2-face", **changes: Any) -> Ended:
        face = name == "dp2-face"
        given = {"checkpoint": self.face if face else self.body, "output": self.output, "precision": "fp32"}
        given["config"] = FACE.name if face else BODY.name
        options = [
            part
            for key, value in (given | changes).items()
            for part in (f"--{key.replace('_', '-')}", value)
            if value is not None
        ]
        return self._standin("export", name, *options)

    def listed(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def refuses(self, code: int, *arguments: Any, **changes: Any) -> str:
        """Its one line, after which the folder is as it was."""
        before = self.listed()
        ended = self.export(*arguments, **changes)
        assert (ended.code, ended.out) == (code, "")
        *told, line = ended.err.splitlines()
        assert all(text.startswith(PROGRESS) for text in told), ended.err
        assert self.listed() == before
        return Ended(ended.code, ended.out, line + "\n").line()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin: Standin) -> Desk:
    # Published sizes take minutes.
    monkeypatch.setattr(configs, "_CONFIGS", (*configs.configs().values(), FACE, BODY))
    return Desk(tmp_path, standin)


def test_the_path_goes_to_standard_output_and_everything_else_beside_it(desk: Desk) -> None:
    # Neither folded to a terminal's width nor read as the name of an emoji.
    output = desk.folder / (90 * "x") / ":smile:[red]"
    face_checkpoint(desk.face, **{"left.over": torch.ones(1)})
    ended = desk.export(output=output)
    assert (ended.code, ended.out) == (0, f"{output}\n")
    lines = ended.err.splitlines()
    assert lines[0] == f"reading {desk.face}"
    assert lines[1] == "warning: 1 tensors have no place in the network: left.over"
    assert lines[2:8] == [
        "computing the published way",
        *("exporting mapping.onnx", "verifying mapping.onnx"),
        *("exporting generator.onnx", "verifying generator.onnx"),
        "writing the bundle",
    ]
    assert [line.split(":")[0] for line in lines[8:]] == ["mapping w", "generator output"]
    bundle = open_bundle(output)
    assert bundle.manifest.name == "dp2-face"
    assert bundle.manifest.generation is not None
    assert bundle.manifest.generation.unexpected == ("left.over",)
    assert [path.name for path in output.parent.iterdir()] == [output.name], "something was left beside it"


def test_without_an_output_the_bundle_is_installed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(desk.folder / "store"))
    place = desk.folder / "store" / "bundles" / "dp2-face"
    ended = desk.export(output=None)
    assert (ended.code, ended.out) == (0, f"{place}\n"), ended.err
    assert Store(desk.folder / "store").find("dp2-face").path == place
    assert "is installed already" in desk.refuses(2, output=None)


def test_options_that_do_not_go_with_a_name_are_refused(desk: Desk) -> None:
    assert "--input-size does not go with dp2-face" in desk.refuses(2, input_size="64x64")
    assert "'64' is no size" in desk.refuses(2, input_size="64")
    assert "--precision does not go with dsfd" in desk.refuses(2, "dsfd", config=None)
    assert "--surface does not go with cse" in desk.refuses(2, "cse", precision=None, surface=desk.surface)


def test_the_surface_of_the_training_comes_into_the_bundle(desk: Desk) -> None:
    ended = desk.export("sg-gan", surface=desk.surface)
    assert ended.code == 0, ended.err
    assert np.array_equal(open_bundle(desk.output).array("vertex_embeddings"), read_surface(desk.surface))
    assert [path.name for path in desk.output.parent.iterdir()] == [desk.output.name]


def test_another_surface_is_refused(desk: Desk) -> None:
    other = cse_checkpoint(desk.folder / "other.pkl", seed=1)
    line = desk.refuses(1, "sg-gan", surface=other)
    assert "the surface is not the one in the generator" in line
    cse_checkpoint(other, vertices=11)
    assert "has 11 vertices of 16 channels, the generator's own 12" in desk.refuses(1, "sg-gan", surface=other)


def test_what_is_no_surface_is_refused(desk: Desk) -> None:
    assert "has no vertex embeddings" in desk.refuses(1, "sg-gan", surface=desk.face)
    assert "is not there" in desk.refuses(1, "sg-gan", surface=desk.folder / "missing.pkl")
    desk.surface.write_bytes(desk.surface.read_bytes()[:-100])
    assert "damaged or cut off" in desk.refuses(1, "sg-gan", surface=desk.surface)
    assert "dp2-face knows no surface" in desk.refuses(2, surface=desk.surface)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def without_a_tensor(path: Path) -> None:
    state = face_network().state_dict()
    del state["encoder.1.skip.weight"]
    torch.save({"EMA_generator": state}, path)


BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "is not there; expected a checkpoint file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("hello"), "is no checkpoint: it is text that begins hello"),
    "cut off": (cut_off, "is damaged or cut off"),
    "another family": (lambda path: shutil.copy(path.with_name("body.ckpt"), path), "looks like SG-GAN with V-SAM"),
    "a detector": (lambda path: shutil.copy(path.with_name("cse.pkl"), path), "looks like detectron2's dense pose"),
    "a tensor too few": (without_a_tensor, "it lacks 1 of 49 tensors: encoder.1.skip.weight; it is incomplete"),
    "another shape": (
        lambda path: face_checkpoint(path, **{"to_rgb.weight": torch.ones(3, 4, 3, 3)}),
        "1 tensors have another shape: to_rgb.weight is (3, 4, 3, 3), expected (3, 4, 1, 1)",
    ),
    "NaN": (
        lambda path: face_checkpoint(path, **{"to_rgb.bias": torch.tensor([0, torch.nan, 0])}),
        "to_rgb.bias has 1 values that are not finite",
    ),
    "whole numbers": (
        lambda path: face_checkpoint(path, **{"to_rgb.bias": torch.ones(3, dtype=torch.int8)}),
        "to_rgb.bias is torch.int8, expected real numbers",
    ),
}


@pytest.mark.parametrize("kind", BAD_CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used_is_one_line_and_leaves_nothing(desk: Desk, kind: str) -> None:
    spoil, expected = BAD_CHECKPOINTS[kind]
    spoil(desk.face)
    line = desk.refuses(1)
    assert line.startswith(str(desk.face))
    assert expected in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"opset": 17}, "opset 17 cannot be exported; expected 18 to 23"),
        ({"opset": 24}, "opset 24 cannot be exported"),
        ({"opset": "new"}, "--opset"),
        ({"precision": "int8"}, "--precision"),
        ({"config": "dp3"}, "--config dp3 does not fit 'dp2-face'"),
        ({"config": None}, "is none of the published files"),
        ({"checkpoint": None}, "--checkpoint"),
    ],
)
def test_wrong_options_are_wrong_usage(desk: Desk, changes: dict[str, Any], expected: str) -> None:
    assert expected in desk.refuses(2, **changes)


def test_an_unknown_generator_is_wrong_usage(desk: Desk) -> None:
    assert "nothing named 'dp3' can be exported; known are: dp2-person-cse" in desk.refuses(2, "dp3", config=None)


def test_an_output_that_holds_something_is_left_alone(desk: Desk) -> None:
    desk.output.mkdir(parents=True)
    (desk.output / "mine").touch()
    assert "is not an empty folder; give a new folder" in desk.refuses(2)
    (desk.output / "bundle.json").touch()
    assert "holds a bundle already" in desk.refuses(2)
    assert "is not an empty folder" in desk.refuses(2, output=desk.face)


def test_an_output_that_cannot_be_made_is_one_line(desk: Desk) -> None:
    assert "cannot be made (Not a directory)" in desk.refuses(1, output=desk.face / "deep" / "bundle")
    assert "cannot be made (File name too long)" in desk.refuses(1, output=desk.folder / "deep" / (300 * "x"))
    loop = desk.folder / "loop"
    loop.symlink_to(loop)
    assert "cannot be made" in desk.refuses(1, output=loop / "bundle")


@pytest.mark.skipif(sys.platform != "linux", reason="where not even root may write")
def test_an_output_where_nobody_may_write_is_one_line(desk: Desk) -> None:
    assert "/proc/deep/bundle cannot be made" in desk.refuses(1, output="/proc/deep/bundle")


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("module", "function"),
    [
        pytest.param(onnx, "save", id="the graphs"),
        pytest.param(shutil, "copyfile", id="the bundle"),
        pytest.param(Path, "rename", id="the last step"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, module: object, function: str
) -> None:
    monkeypatch.setattr(module, function, full)
    line = desk.refuses(1)
    assert line.startswith(f"{desk.output} cannot be written (No space left on device); nothing was left behind")


def test_an_interrupted_export_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx, "save", interrupt)
    before = desk.listed()
    ended = desk.export()
    assert (ended.code, ended.out) == (130, "")
    assert "Traceback" not in ended.err
    assert desk.listed() == before


TERMINATED = """
import os, signal, sys, threading
import onnx
from export import configs
from tests.export.tiny import FACE
from stream.__main__ import main

configs._CONFIGS = (FACE,)
number, folder = sys.argv.pop(), sys.argv.pop()
onnx.save = lambda *_: (print(os.listdir(folder), flush=True), os.kill(os.getpid(), int(number)))
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.thorough)])
def test_an_export_that_is_terminated_leaves_nothing(desk: Desk, number: signal.Signals) -> None:
    options = ["--checkpoint", desk.face, "--config", FACE.name, "--output", desk.folder / "new"]
    before = desk.listed()
    ended = child(TERMINATED, "export", "dp2-face", *options, desk.folder, int(number))
    assert ended.code == 130, ended.err
    # Control: it had begun to write.
    assert "'.new." in ended.out
    assert desk.listed() == before


WITHOUT = """
import sys

missing = sys.argv.pop(1)

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Refuse())
from stream.__main__ import main
main()
"""


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_without_the_export_extra_it_says_what_to_install(desk: Desk, package: str) -> None:
    before = desk.listed()
    options = ["--checkpoint", desk.face, "--output", desk.output]
    ended = child(WITHOUT, package, "export", "dp2-face", *options)
    assert (ended.code, ended.out) == (1, "")
    line = ended.line()
    assert f"No module named '{package}'" in line
    assert 'pip install "standin[export]"' in line
    assert desk.listed() == before
