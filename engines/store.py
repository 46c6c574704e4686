"""The store: where bundles of known models are kept on this machine, and how they get there."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import platformdirs

from engines import registry
from engines.built_in import FOLDER, built_in
from engines.bundle import Bundle, open_bundle
from engines.checkpoints import checkpoints, how_to_make
from engines.errors import BundleError, BundleMissingError, StandinError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from engines.download import Progress
    from engines.registry import Artefact

    #: Makes a bundle in an empty folder of a published file whose hash was checked.
    Recipe = Callable[[Path, Artefact, Path], Bundle]

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def home() -> Path:
    """Returns the default store's folder: $STANDIN_HOME, or `standin` in the user's cache folder."""
    chosen = os.environ.get("STANDIN_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("standin", appauthor=False)


def _recipes() -> dict[str, Recipe]:
    def centerface(published: Path, artefact: Artefact, folder: Path) -> Bundle:
        # Imported here: building loads onnx, which opening an installed bundle does not need.
        build: Recipe = import_module("engines.centerface").build
        return build(published, artefact, folder)

    def imported(published: Path, artefact: Artefact, folder: Path) -> Bundle:
        build: Recipe = import_module("engines.importers.build").build
        return build(published, artefact, folder)

    return {"centerface": centerface, "fastestdet": imported, "ultraface": imported}


class Store:
    """A folder with `bundles/NAME/`, `downloads/` and `locks/`; may be shared by several processes.

    A bundle that is not in it is looked for among those that come with the project.

    Args:
        root: The folder; made on the first pull.
        known: Artefacts by name; the registry if not given.
        recipes: How to build bundles, by the artefacts' `build`; the project's own if not given.
        built_in: Folder with a folder for each bundle that comes with the project; the package's own if not given.
    """

    def __init__(
        self,
        root: Path,
        *,
        known: Mapping[str, Artefact] | None = None,
        recipes: Mapping[str, Recipe] | None = None,
        built_in: Path = FOLDER,
    ) -> None:
        self.root = root
        self._built_in = built_in
        self._known = registry.artefacts() if known is None else dict(known)
        self._recipes = _recipes() if recipes is None else dict(recipes)

    @property
    def known(self) -> dict[str, Artefact]:
        """The artefacts that can be pulled, by name."""
        return dict(self._known)

    def path(self, name: str) -> Path:
        """Returns the folder where the bundle of that name is or would be.

        Raises:
            UsageError: It cannot be a bundle's name.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be a bundle's name; expected lower-case letters, digits, '.', '_', '-'")
        return self.root / "bundles" / name

    def is_built_in(self, name: str) -> bool:
        """Whether the bundle that goes by that name is one that comes with the project; one that is installed wins.

        Raises:
            UsageError: It cannot be a bundle's name.
        """
        return not self.path(name).exists() and (self._built_in / name).exists()

    def brought(self, bundle: Bundle) -> bool:
        """Whether an opened bundle is one of those that came with the project."""
        return bundle.path.parent == self._built_in

    def open(self, name: str) -> Bundle:
        """Opens and verifies an installed bundle, or else one that comes with the project.

        Raises:
            UsageError: Neither installed nor known.
            BundleMissingError: Not installed; the message says how to install it.
            BundleError: Installed, but not intact.
        """
        path = self.path(name)
        if self.is_built_in(name):
            path = self._built_in / name
        elif not path.exists():
            raise BundleMissingError(f"bundle {name!r} is not installed in {self.root}; {self._todo(name)}")
        try:
            return open_bundle(path)
        except BundleError as error:
            if todo := self._repair(name):
                raise type(error)(f"{error}; {todo}") from None
            raise

    def _repair(self, name: str) -> str:
        """What helps against a bundle that is there and not intact, empty where nothing is known to."""
        if self.is_built_in(name):
            return "it comes with Standin: install Standin again"
        if name in self._known:
            return f"run: standin engines pull {name}"
        if name in self.built_in():
            return f"remove {self.path(name)}, and the one that comes with Standin is used"
        return ""

    def _todo(self, name: str) -> str:
        """How a bundle that is not there comes there.

        Raises:
            UsageError: It is not known.
        """
        if self._exported(name):
            return how_to_make(name)
        if self._ships(name):
            return (
                f"nor does this release of Standin bring it (it would be {self._built_in / name}); "
                f"give one with --engine {name}=FOLDER, or choose another --preset"
            )
        registry.find_artefact(name, self._known, self.available())
        return f"run: standin engines pull {name}"

    def _exported(self, name: str) -> bool:
        """Whether it is a checkpoint of which `standin export` makes that bundle, and not an artefact to pull."""
        return name not in self._known and name in checkpoints()

    def _ships(self, name: str) -> bool:
        """Whether it comes with the project, in this installation or another, and is not an artefact to pull."""
        return name not in self._known and (name in built_in() or name in self.built_in())

    def find(self, text: str) -> Bundle:
        """Opens a path where the text can only be one, else the store's bundle of that name.

        Raises:
            UsageError: Neither a folder, nor installed, nor known.
            BundleError: As `open`.
        """
        named = text in self._known or text in self.available()
        if os.sep in text or text in (".", "..") or (not named and Path(text).is_dir()):
            return open_bundle(Path(text))
        return self.open(text)

    def installed(self) -> tuple[str, ...]:
        """Returns the names of the bundles that are there, intact or not, sorted."""
        return _names(self.root / "bundles")

    def built_in(self) -> tuple[str, ...]:
        """Returns the names of the bundles that came with the project, intact or not, sorted."""
        return _names(self._built_in)

    def available(self) -> tuple[str, ...]:
        """Returns the names of all that can be opened without being fetched first, intact or not, sorted."""
        return tuple(sorted({*self.installed(), *self.built_in()}))

    def pull(
        self, name: str, *, progress: Progress | None = None, source: str | None = None, force: bool = False
    ) -> Bundle:
        """Fetches a known artefact, builds its bundle and installs it; at once if it is there and intact.

        Processes that pull the same name wait for each other, and only the first fetches. What comes with the project
        is there already.

        Args:
            name: As in the registry.
            progress: Is told how far the download is.
            source: URL, file or wheel instead of the declared sources; the hash must match all the same.
            force: Fetch and build even if there is an intact bundle.

        Raises:
            UsageError: The name is not known, or of a bundle that is exported or built in, or `source` is unusable.
            DownloadError: It cannot be fetched.
            BundleError: It cannot be built, or the store cannot be written.
        """
        if self._exported(name):
            raise UsageError(f"{name!r} cannot be pulled, it is exported from a checkpoint; {how_to_make(name)}")
        if self._ships(name):
            if source is not None or force:
                raise UsageError(f"{name!r} cannot be pulled, it comes with Standin; leave --source and --force out")
            return self.open(name)
        # Imported here: most processes open bundles that are there, and need no HTTP client.
        from engines.download import fetch, parse_source

        artefact = registry.find_artefact(name, self._known)
        sources = None if source is None else (parse_source(source, artefact),)
        if not force and (bundle := self._intact(name)):
            return bundle
        try:
            with self._locked(name):
                # Another process may have installed it while this one waited.
                if not force and (bundle := self._intact(name)):
                    return bundle
                downloads = self.root / "downloads"
                downloads.mkdir(parents=True, exist_ok=True)
                for stale in downloads.glob(f".{artefact.name}.*.part"):
                    stale.unlink(missing_ok=True)
                published = fetch(artefact, downloads / artefact.name, progress=progress, sources=sources)
                bundle = self._install(artefact, published)
                published.unlink(missing_ok=True)
                return bundle
        except StandinError:
            raise
        except OSError as error:
            raise self._unwritable(error) from error

    def install(self, name: str, make: Callable[[Path], Bundle], *, force: bool = False) -> Bundle:
        """Installs a bundle that is made here, under a name that the registry does not have.

        Under the name of one that comes with the project, it is used instead.

        Args:
            name: The bundle's name.
            make: Writes the bundle into the folder that it is given.
            force: Replace an installed bundle of that name.

        Raises:
            UsageError: The name cannot be a bundle's, is one of the registry's, or is taken.
            BundleError: The store cannot be written.
        """
        if name in self._known:
            raise UsageError(f"{name!r} is the name of a known bundle (standin engines pull {name}); choose another")
        final = self.path(name)
        try:
            with self._locked(name):
                if final.exists() and not force:
                    raise UsageError(f"a bundle {name!r} is installed already; choose another name, or give --force")
                return self._put(name, make)
        except StandinError:
            raise
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> BundleError:
        return BundleError(
            f"the store {self.root} cannot be written ({error.strerror or error}); "
            "set STANDIN_HOME to a folder that you may write and that has space"
        )

    def _intact(self, name: str) -> Bundle | None:
        try:
            return open_bundle(self.path(name))
        except BundleMissingError:
            return None
        except BundleError as error:
            log.warning("the installed bundle is not intact and is fetched again: %s", error)
            return None

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{name}.lock"):
            yield

    def _install(self, artefact: Artefact, published: Path) -> Bundle:
        return self._put(artefact.name, lambda folder: self._recipes[artefact.build](published, artefact, folder))

    def _put(self, name: str, make: Callable[[Path], Bundle]) -> Bundle:
        """Builds beside the final place and moves the whole folder there: nobody sees a half of it."""
        final = self.path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        # Names that begin with a dot are no bundle names; those of killed processes are removed here.
        for stale in final.parent.glob(f".{name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=final.parent))
        try:
            make(work / "new")
            if final.exists():
                final.replace(work / "old")
            (work / "new").replace(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return open_bundle(final)


def _names(folder: Path) -> tuple[str, ...]:
    """The folders in it whose names can be bundles', sorted."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name)))
