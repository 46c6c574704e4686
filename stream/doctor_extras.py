"""What `standin doctor` says about the libraries of optional commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from stream.check import Check, version_of

#: By the extra that brings them: what they are called together, what for, and the distributions.
_EXTRAS: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "serve": ("status page", "the status page of standin serve", ("fastapi", "uvicorn", "prometheus_client")),
    "batch": ("Ray", "standin batch", ("ray", "fsspec")),
    "evaluate": ("measures", "standin evaluate", ("torch", "torchmetrics", "pycocotools")),
}


def check_extras(installed: Callable[[str], str | None] = version_of) -> list[Check]:
    """The libraries of the status page, of `standin batch` and of `standin evaluate`.

    Args:
        installed: returns the version of a distribution, None without it.
    """
    return [_extra(extra, *entry, installed) for extra, entry in _EXTRAS.items()]


def _extra(
    extra: str, name: str, purpose: str, packages: tuple[str, ...], installed: Callable[[str], str | None]
) -> Check:
    found = {package: installed(package) for package in packages}
    if all(found.values()):
        return Check(name, "ok", ", ".join(f"{package} {version}" for package, version in found.items()))
    missing = ", ".join(package for package, version in found.items() if version is None)
    return Check(name, "missing", f"{missing} not installed", f'only for {purpose}: pip install "standin[{extra}]"')
