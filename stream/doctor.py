"""`standin doctor`: what this machine has for Standin, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines.built_in import built_in
from engines.errors import BundleError, BundleMissingError, RuntimeUnavailableError
from engines.runtime_onnx import import_onnxruntime
from engines.runtime_openvino import import_openvino, openvino_core
from engines.store import Store, home
from stream.check import Check, last_line, run_probe, version_of
from stream.check_placement import check_placement
from stream.doctor_extras import check_extras
from stream.doctor_gpu import check_tensorrt
from stream.doctor_live import check_gstreamer
from stream.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Encoder -> what to do without it, if anything.
ENCODERS = {
    "libx264": "reinstall PyAV from its wheel: pip install --force-reinstall av",
    "libx265": "only for H.265 output",
    "libvpx-vp9": "only for VP9 output",
    "libsvtav1": "only for AV1 output",
    "ffv1": "only for lossless output",
    "h264_nvenc": "only for encoding on an NVIDIA GPU",
}
_DECODER_PROBE = "from stream.sources.hardware import check_decoder; check_decoder('cuda')"
_ENCODER_PROBE = "import sys; from stream.doctor import probe_encoders; probe_encoders(sys.argv[1:])"


def check_python() -> list[Check]:
    """Python and Standin."""
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    return [
        Check("Python", "ok", found),
        Check("standin", "ok", version_of("standin") or "not installed as a package"),
    ]


def _library(name: str, module: str, package: str, detail: Callable[[object], str]) -> Check:
    try:
        return Check(name, "ok", detail(import_module(module)))
    except ImportError as error:
        return Check(name, "missing", str(error), f"pip install --force-reinstall {package}", needed=True)


def check_libraries() -> list[Check]:
    """NumPy, OpenCV, and PyAV with its FFmpeg."""

    def version(module: object) -> str:
        return str(getattr(module, "__version__", "unknown"))

    def pyav(module: object) -> str:
        return f"{version(module)} with FFmpeg {getattr(module, 'ffmpeg_version_info', 'unknown')}"

    return [
        _library("NumPy", "numpy", "numpy", version),
        _library("OpenCV", "cv2", "opencv-python-headless", version),
        _library("PyAV", "av", "av", pyav),
    ]


def check_onnxruntime(installed: Callable[[str], str | None] = version_of) -> list[Check]:
    """ONNX Runtime, its providers, and whether two builds of it lie over each other.

    Args:
        installed: Returns the version of a distribution, None without it.
    """
    checks = []
    try:
        ort = import_onnxruntime()
    except RuntimeUnavailableError as error:
        checks.append(Check("ONNX Runtime", "missing", "not usable", str(error), needed=True))
    else:
        providers = ", ".join(ort.get_available_providers())
        checks.append(Check("ONNX Runtime", "ok", f"{ort.__version__} with {providers}", needed=True))
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if installed(name)]
    if len(builds) > 1:
        checks.append(
            Check(
                "ONNX Runtime builds",
                "warn",
                "onnxruntime and onnxruntime-gpu are both installed and share one folder",
                'pip uninstall both, then pip install "standin[cpu]" or "standin[gpu]"',
            )
        )
    return checks


def check_openvino() -> list[Check]:
    """OpenVINO, the other runtime for the CPU."""
    try:
        processor = openvino_core().get_property("CPU", "FULL_DEVICE_NAME")
    except (RuntimeUnavailableError, RuntimeError) as error:
        todo = 'only needed for --device openvino: pip install "standin[openvino]"'
        return [Check("OpenVINO", "missing", " ".join(str(error).split()), todo)]
    return [Check("OpenVINO", "ok", f"{import_openvino().get_version()} on {str(processor).strip()}")]


def check_gpu() -> list[Check]:
    """NVIDIA GPUs, as the driver's own tool sees them."""
    tool = shutil.which("nvidia-smi")
    todo = "only needed for --device cuda and tensorrt"
    if tool is None:
        return [Check("NVIDIA GPU", "missing", "no nvidia-smi, so no driver", todo)]
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    status, out, err = run_probe(query)
    gpus = "; ".join(line.strip() for line in out.splitlines() if line.strip())
    if status != 0 or not gpus:
        return [Check("NVIDIA GPU", "missing", last_line(err or out, "nvidia-smi lists none"), todo)]
    return [Check("NVIDIA GPU", "ok", gpus), _check_gpu_decoder()]


def _check_gpu_decoder() -> Check:
    """Whether the GPU decodes video; not all do, and containers are often given one without its video part."""
    name = "decoder of the GPU"
    status, _, err = run_probe([sys.executable, "-c", _DECODER_PROBE])
    if status == 0:
        return Check(name, "ok", "opens")
    # A traceback ends with the error's name.
    problem = last_line(err, "opening it failed").partition("Error: ")
    todo = "only needed for --decoder cuda; in containers: NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
    return Check(name, "missing", problem[2] or problem[0], todo)


def probe_encoders(names: Iterable[str]) -> None:
    """Opens encoders, and writes one line of JSON for each: name and error (null if it opened).

    Listed is not usable: h264_nvenc is listed by every FFmpeg that was built with it, GPU or not. Run in a
    process of its own, since some encoders write to standard error past FFmpeg's log.
    """
    for name in names:
        sys.stdout.write(json.dumps([name, _open_encoder(name)]) + "\n")
        sys.stdout.flush()


def _open_encoder(name: str) -> str | None:
    """Returns why an encoder does not open, None if it does."""
    # Imported here: this runs in the probe's process, and only there a broken PyAV may raise.
    import av
    from av.error import FFmpegError

    try:
        encoder = av.CodecContext.create(name, "w")
        if not isinstance(encoder, av.VideoCodecContext):
            return "not a video encoder"
        encoder.width, encoder.height, encoder.pix_fmt = 256, 144, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
        encoder.open()
    except FFmpegError as error:
        return error.strerror or type(error).__name__
    except ValueError:
        return "this FFmpeg does not have it"
    return None


def check_encoders(names: Sequence[str] = tuple(ENCODERS)) -> list[Check]:
    """Which encoders can be used, not only which are listed."""
    _, out, err = run_probe([sys.executable, "-c", _ENCODER_PROBE, *names])
    found: dict[str, str | None] = {}
    for line in out.splitlines():
        if line.startswith("["):
            name, problem = json.loads(line)
            found[name] = problem
    checks = []
    for name in names:
        problem = found.get(name, f"opening it failed ({last_line(err, 'no output')})")
        needed = name == "libx264"
        if problem is None:
            checks.append(Check(f"encoder {name}", "ok", "opens", needed=needed))
        else:
            checks.append(Check(f"encoder {name}", "missing", problem, ENCODERS.get(name, ""), needed=needed))
    return checks


def check_store(store: Store) -> list[Check]:
    """Where bundles are kept, and each known bundle."""
    folder = store.root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    detail = f"{store.root}, {free:.1f} GB free"
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        checks = [Check("store", "ok" if free > 1 else "warn", detail, "" if free > 1 else "free some space")]
    else:
        checks = [Check("store", "warn", f"{detail}, not writable", "set STANDIN_HOME to a folder that you may write")]
    return [*checks, *(_bundle(name, store) for name in sorted({*store.known, *built_in(), *store.built_in()}))]


def _bundle(name: str, store: Store) -> Check:
    """A bundle that can be pulled, or comes with the project."""
    todo = _how_to_get(name, store)
    try:
        bundle = store.open(name)
    except BundleMissingError:
        lacking = "not installed" if name in store.known else "not in this release"
        return Check(f"bundle {name}", "missing", lacking, todo)
    except BundleError as error:
        return Check(f"bundle {name}", "warn", str(error), todo)
    there = "built in" if store.is_built_in(name) else "installed"
    return Check(f"bundle {name}", "ok", f"{there} and verified, {bundle.path}")


def check_presets(store: Store) -> list[Check]:
    """For each preset, which of its bundles are not there."""
    checks, there = [], store.available()
    for name, preset in PRESETS.items():
        wanted = (*preset.detectors, *preset.generators.values())
        missing = [bundle for bundle in wanted if bundle not in there]
        if missing:
            todo = "; ".join(_how_to_get(bundle, store) for bundle in missing)
            checks.append(Check(f"preset {name}", "missing", f"needs {', '.join(missing)}", todo))
        else:
            joining = [bundle for bundle in preset.joins if bundle in there]
            checks.append(Check(f"preset {name}", "ok", f"has {', '.join((*wanted, *joining))}"))
    return checks


def _how_to_get(bundle: str, store: Store) -> str:
    """The command that brings a bundle."""
    if bundle in store.known:
        return f"standin engines pull {bundle}"
    if bundle in built_in() or bundle in store.built_in():
        return f"standin run ... --engine {bundle}=FOLDER"
    return f"standin export {bundle} ..."


def collect(store: Store | None = None) -> list[Check]:
    """Looks at everything.

    Args:
        store: The store to look at; the default one if not given.
    """
    store = store or Store(home())
    return [
        *check_python(),
        *check_libraries(),
        *check_onnxruntime(),
        *check_openvino(),
        *check_gpu(),
        *check_placement(),
        *check_tensorrt(),
        *check_encoders(),
        *check_gstreamer(),
        *check_extras(),
        *check_store(store),
        *check_presets(store),
    ]


def render(checks: Sequence[Check], console: Console) -> None:
    """Writes the checks as a table, and below it whether the default run is possible."""
    table = Table()
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "missing": "red"}
    for check in checks:
        # What is not there and not needed is no alarm.
        dim = check.status == "missing" and not check.needed
        colour = "dim" if dim else colours[check.status]
        table.add_row(f"[{colour}]{check.status}[/]", *map(Text, (check.name, check.detail, check.todo)))
    console.print(table)
    lacking = [check.name for check in checks if _prevents(check)]
    if lacking:
        console.print(f"Standin cannot run here yet: {', '.join(lacking)}.", markup=False)
    else:
        console.print("Everything that the default run needs is here.")


def _prevents(check: Check) -> bool:
    return check.needed and check.status == "missing"


def exit_code(checks: Iterable[Check]) -> int:
    """Returns 1 when something that the default run needs is unusable, else 0."""
    return 1 if any(_prevents(check) for check in checks) else 0


def doctor_command() -> int:
    """Looks, prints, and returns the exit code (see `exit_code`)."""
    checks = collect()
    render(checks, Console())
    return exit_code(checks)
