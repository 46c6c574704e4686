"""What a shell must have set so that GStreamer finds the element and the element finds Python's packages."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engines.errors import RuntimeUnavailableError

#: On GStreamer's plugin path; its folder `python` is what the loader reads.
PLUGINS: Final = Path(__file__).parent / "gst_plugins"
#: Where Debian keeps packages for its own interpreter; the compiled ones fit others of the same version.
_DEBIAN: Final = Path("/usr/lib/python3/dist-packages")
_PACKAGES: Final = (
    "python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-tools gstreamer1.0-plugins-base "
    "gstreamer1.0-python3-plugin-loader"
)


def variables() -> dict[str, str]:
    """Environment variables for `gst-launch-1.0` and any program that runs pipelines, by name.

    Raises:
        RuntimeUnavailableError: GStreamer's Python bindings are not there, or are for another Python.
    """
    found = [PLUGINS, *_given("GST_PLUGIN_PATH")]
    packages = [*_own_packages(), bindings_folder(), *_given("PYTHONPATH")]
    return {
        "GST_PLUGIN_PATH": os.pathsep.join(map(str, dict.fromkeys(found))),
        "PYTHONPATH": os.pathsep.join(map(str, dict.fromkeys(packages))),
    }


def check_tools() -> None:
    """Whether pipelines can be run from a shell here.

    Raises:
        RuntimeUnavailableError: they cannot.
    """
    if shutil.which("gst-inspect-1.0") is None:
        raise RuntimeUnavailableError(f"GStreamer's tools are not installed; on Debian: apt install {_PACKAGES}")


def _given(name: str) -> list[Path]:
    return [Path(part) for part in os.environ.get(name, "").split(os.pathsep) if part]


def _own_packages() -> list[Path]:
    """Where this project is, and where its dependencies are."""
    return [Path(__file__).resolve().parents[1], *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))]


def bindings_folder() -> Path:
    """The folder that holds the package `gi` for this version of Python.

    Raises:
        RuntimeUnavailableError: there is none.
    """
    spec = find_spec("gi")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parents[1]
    if not (_DEBIAN / "gi").is_dir():
        raise RuntimeUnavailableError(
            f"GStreamer's Python bindings are not installed; on Debian: apt install {_PACKAGES}"
        )
    wanted = f"cpython-{sys.version_info.major}{sys.version_info.minor}-"
    made_for = [path.name for path in (_DEBIAN / "gi").glob("_gi.*.so")]
    if not any(wanted in name for name in made_for):
        raise RuntimeUnavailableError(
            f"GStreamer's Python bindings are for another Python ({', '.join(made_for)}), this one is "
            f"{sys.version_info.major}.{sys.version_info.minor}; make Standin's environment with the system's python3"
        )
    return _DEBIAN
