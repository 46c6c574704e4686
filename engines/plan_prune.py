"""Where plans may be removed: in folders whose bundles lie elsewhere too, and never while somebody builds there."""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

import filelock

from engines.bundle import open_bundle
from engines.errors import BundleError, BundleMissingError
from engines.plan_build import LOCK_NAME
from engines.plans import PLAN_SUFFIX, Rejected, noted_bundles, plan_folders, useless

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from engines.bundle import Bundle
    from engines.plans import Target

    #: Finds the plans in one folder that no run would load.
    Look = Callable[[], list[Rejected]]

log = logging.getLogger(__name__)


def folders_elsewhere(home: Path, known: Collection[Path], target: Target | None) -> dict[Path, Look]:
    """Folders for plans of bundles that no store knows: those of another place, and those that are not there any more.

    Args:
        home: the user's folder.
        known: folders of bundles that a store knows.
        target: the machine; None where nobody knows.

    Returns:
        What finds plans to remove, for each folder.
    """
    found: dict[Path, Look] = {}
    for folder in sorted((home / "plans").glob("*")):
        if not folder.is_dir() or folder in known:
            continue
        try:
            bundle = _origin(folder, home)
        except BundleError as error:
            log.warning("%s is left out: %s", folder, error)
            continue
        found[folder] = partial(_orphans, folder) if bundle is None else partial(useless, bundle, (folder,), target)
    return found


def _origin(folder: Path, home: Path) -> Bundle | None:
    """The bundle whose plans lie in a folder, None if it is not there any more, or is another one now.

    Raises:
        BundleError: It is not intact.
    """
    for place in noted_bundles(folder):
        with contextlib.suppress(BundleMissingError):
            bundle = open_bundle(place)
            if folder in plan_folders(bundle, home):
                return bundle
    return None


def _orphans(folder: Path) -> list[Rejected]:
    reason = "the bundle that it was built from is not there"
    return [Rejected(path, reason) for path in sorted(folder.glob(f"*{PLAN_SUFFIX}"))]


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Whether nobody builds in a folder for as long as this lasts: until its record is written a plan looks useless.

    Args:
        folder: that plans may be built in.
    """
    with contextlib.ExitStack() as held:
        try:
            if folder.is_dir():
                held.enter_context(filelock.FileLock(folder / LOCK_NAME, blocking=False))
        except filelock.Timeout:
            yield False
            return
        except OSError as error:
            # Who cannot write there cannot remove anything either, and is told so then.
            log.debug("%s cannot be locked: %s", folder, error)
        yield True
