from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines import store as store_module
from engines.built_in import built_in
from engines.bundle import Bundle, open_bundle, write_bundle
from engines.checkpoints import how_to_make
from engines.errors import (
    BundleError,
    BundleMissingError,
    BundleTamperedError,
    DownloadError,
    HashMismatchError,
    UsageError,
)
from engines.registry import Artefact
from engines.store import Store, home
from tests.engines.helpers import Request, Site, broken_after, tiny_draft, whole

#: What another process does: pull `tiny` from a URL into a store, and say what it got.
PULL = """
import sys
from pathlib import Path

from engines.store import Store
from tests.engines.test_store import copy_recipe, described
url, sha256, size, root = sys.argv[1:]
artefact = described(url, sha256, int(size))
print(Store(Path(root), known={"tiny": artefact}, recipes={"tiny": copy_recipe}).pull("tiny").digest)
"""


def copy_recipe(published: Path, artefact: Artefact, folder: Path) -> Bundle:
    """A recipe that takes the published file as the graph."""
    return write_bundle(folder, tiny_draft(artefact.name), {"detector.onnx": published})


def described(url: str, sha256: str, size: int) -> Artefact:
    site = Site(url, b"")
    return site.artefact(sha256=sha256, size=size)


def store_for(site: Site, root: Path) -> Store:
    return Store(root, known={"tiny": site.artefact()}, recipes={"tiny": copy_recipe})


def start(site: Site, root: Path) -> subprocess.Popen[str]:
    artefact = site.artefact()
    arguments = [site.url, artefact.sha256, str(artefact.size), str(root)]
    command = [sys.executable, "-W", "error", "-c", PULL, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_over(root: Path) -> list[str]:
    """Files in the store that are neither a bundle's nor a lock."""
    names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    return sorted(name for name in names if not name.startswith(("bundles/tiny/", "locks/")))


def test_home_is_the_environments_or_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STANDIN_HOME", str(tmp_path / "x"))
    assert home() == tmp_path / "x"
    monkeypatch.delenv("STANDIN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "standin"


def test_a_pulled_bundle_is_intact_and_leaves_nothing_else(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path)
    assert store.installed() == ()
    bundle = store.pull("tiny")
    assert bundle.path == store.path("tiny") == tmp_path / "bundles" / "tiny"
    assert bundle.file("detector.onnx").read_bytes() == site.content
    assert store.installed() == ("tiny",)
    assert store.open("tiny") == bundle
    assert left_over(tmp_path) == []


def test_an_intact_bundle_is_not_fetched_again_unless_forced(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path)
    first = store.pull("tiny")
    assert store.pull("tiny") == first
    assert len(site.requests) == 1
    assert store.pull("tiny", force=True) == first
    assert len(site.requests) == 2
    assert left_over(tmp_path) == []


def test_what_is_not_installed_says_how_to_install_it(site: Site, tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match="run: standin engines pull tiny"):
        store_for(site, tmp_path).open("tiny")


def test_what_is_exported_says_which_checkpoint_to_get_and_what_to_run(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path)
    for look in (store.open, store.find):
        with pytest.raises(BundleMissingError) as caught:
            look("dp2-person-cse")
        assert how_to_make("dp2-person-cse") in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"cannot be pulled.* run: standin export dsfd --checkpoint FILE"):
        store.pull("dsfd")
    assert site.requests == []


def test_an_artefact_of_a_store_goes_before_a_checkpoint_of_that_name(site: Site, tmp_path: Path) -> None:
    store = Store(tmp_path, known={"dsfd": site.artefact()}, recipes={"tiny": copy_recipe})
    with pytest.raises(BundleMissingError, match="run: standin engines pull dsfd"):
        store.open("dsfd")


@pytest.mark.parametrize("name", ["tinny", "../tiny", "", "/tmp", "Tiny", "a b"])
def test_a_name_that_is_not_known_is_a_usage_error(site: Site, tmp_path: Path, name: str) -> None:
    store = store_for(site, tmp_path)
    with pytest.raises(UsageError):
        store.open(name)
    with pytest.raises(UsageError):
        store.pull(name)
    assert site.requests == []


@pytest.mark.parametrize("damage", ["change", "remove", "manifest", "empty"])
def test_a_damaged_bundle_is_an_error_to_open_and_replaced_by_a_pull(site: Site, tmp_path: Path, damage: str) -> None:
    store = store_for(site, tmp_path)
    bundle = store.pull("tiny")
    graph = bundle.file("detector.onnx")
    if damage == "change":
        graph.write_bytes(b"changed")
    elif damage == "remove":
        graph.unlink()
    elif damage == "manifest":
        (bundle.path / "bundle.json").write_text("{}")
    else:
        shutil.rmtree(bundle.path)
        bundle.path.mkdir()
    with pytest.raises(BundleError, match="standin engines pull tiny"):
        store.open("tiny")
    assert store.pull("tiny") == bundle
    assert store.open("tiny") == bundle
    assert left_over(tmp_path) == []


def test_a_changed_file_is_a_tampered_bundle(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path)
    store.pull("tiny").file("detector.onnx").write_bytes(b"changed")
    with pytest.raises(BundleTamperedError, match=r"detector\.onnx"):
        store.open("tiny")


def test_another_source_must_have_the_same_hash(site: Site, tmp_path: Path) -> None:
    (tmp_path / "right").write_bytes(site.content)
    (tmp_path / "wrong").write_bytes(bytes(len(site.content)))
    store = store_for(site, tmp_path / "store")
    with pytest.raises(HashMismatchError):
        store.pull("tiny", source=str(tmp_path / "wrong"))
    assert store.installed() == ()
    store.pull("tiny", source=str(tmp_path / "right"))
    assert store.installed() == ("tiny",)
    assert site.requests == []


def test_a_recipe_that_fails_installs_nothing(site: Site, tmp_path: Path) -> None:
    def fails(published: Path, artefact: Artefact, folder: Path) -> Bundle:
        write_bundle(folder, tiny_draft(), {"detector.onnx": b"half"})
        raise BundleError("no parity")

    store = Store(tmp_path, known={"tiny": site.artefact()}, recipes={"tiny": fails})
    with pytest.raises(BundleError, match="no parity"):
        store.pull("tiny")
    assert store.installed() == ()
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_failed_forced_pull_keeps_the_old_bundle(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path)
    old = store.pull("tiny")
    site.answers = [lambda request: request.reply(404, b"")]
    with pytest.raises(DownloadError):
        store.pull("tiny", force=True)
    assert store.open("tiny") == old


def test_a_store_that_cannot_be_written_says_what_to_set(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="STANDIN_HOME"):
        store_for(site, tmp_path / "file").pull("tiny")


def test_processes_that_pull_at_once_download_once(site: Site, tmp_path: Path) -> None:
    processes = [start(site, tmp_path) for _ in range(4)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, results
    assert len({out for out, _ in results}) == 1
    assert len(site.requests) == 1
    assert left_over(tmp_path) == []


def test_a_process_killed_in_a_download_leaves_no_bundle_and_the_next_pull_works(site: Site, tmp_path: Path) -> None:
    released = threading.Event()

    def hanging(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(site.content)))
        request.end_headers()
        request.wfile.write(site.content[:200_000])
        request.wfile.flush()
        released.wait(60)

    site.answers = [hanging, whole]
    process = start(site, tmp_path)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 50_000 for p in tmp_path.glob("downloads/.tiny.*.part")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    released.set()
    store = store_for(site, tmp_path)
    assert store.installed() == ()
    assert not (tmp_path / "downloads" / "tiny").exists()
    assert store.pull("tiny").file("detector.onnx").read_bytes() == site.content
    assert left_over(tmp_path) == []


def test_a_process_killed_while_building_leaves_no_bundle(site: Site, tmp_path: Path) -> None:
    stale = tmp_path / "bundles" / ".tiny.abc" / "new"
    stale.mkdir(parents=True)
    (stale / "detector.onnx").write_bytes(b"half")
    store = store_for(site, tmp_path)
    assert store.installed() == ()
    store.pull("tiny")
    assert left_over(tmp_path) == []


def test_a_broken_connection_does_not_fail_a_pull(site: Site, tmp_path: Path) -> None:
    site.answers = [broken_after(100_000), whole]
    store_for(site, tmp_path).pull("tiny")
    assert len(site.requests) == 2


def test_every_known_artefact_has_a_recipe() -> None:
    recipes = store_module._recipes()
    assert {artefact.build for artefact in Store(Path("x")).known.values()} <= set(recipes)


def test_an_artefact_of_other_bytes_is_refused_by_the_centerface_recipe(tmp_path: Path) -> None:
    known = Store(tmp_path).known["centerface"]
    fake = tmp_path / "fake"
    fake.write_bytes(b"\xff\xffnot a network")
    with pytest.raises(HashMismatchError):
        Store(tmp_path / "store").pull("centerface", source=str(fake))
    with pytest.raises(BundleError, match="not an ONNX file"):
        store_module._recipes()["centerface"](fake, known, tmp_path / "out")


def _make(folder: Path) -> Bundle:
    return write_bundle(folder, tiny_draft("own"), {"detector.onnx": b"graph"})


def test_a_bundle_of_ones_own_is_installed_and_leaves_nothing_else(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path / "store")
    bundle = store.install("own", _make)
    assert store.open("own").digest == bundle.digest
    assert [path.name for path in (store.root / "bundles").iterdir()] == ["own"]


def test_an_installed_bundle_of_ones_own_is_replaced_only_when_forced(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path / "store")
    first = store.install("own", _make)

    def other(folder: Path) -> Bundle:
        return write_bundle(folder, tiny_draft("own"), {"detector.onnx": b"another graph"})

    with pytest.raises(UsageError, match="installed already"):
        store.install("own", other)
    assert store.open("own").digest == first.digest
    assert store.install("own", other, force=True).digest != first.digest


def test_a_bundle_of_ones_own_cannot_have_a_known_name(site: Site, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="engines pull tiny"):
        store_for(site, tmp_path / "store").install("tiny", _make, force=True)


def test_a_bundle_that_cannot_be_made_changes_nothing(site: Site, tmp_path: Path) -> None:
    store = store_for(site, tmp_path / "store")
    first = store.install("own", _make)

    def broken(folder: Path) -> Bundle:
        folder.mkdir()
        raise BundleError("no")

    with pytest.raises(BundleError, match="no"):
        store.install("own", broken, force=True)
    assert store.open("own").digest == first.digest
    assert [path.name for path in (store.root / "bundles").iterdir()] == ["own"]


def test_installing_into_a_store_that_cannot_be_written_says_what_to_set(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="STANDIN_HOME"):
        store_for(site, tmp_path / "file").install("own", _make)


# --- bundles that come with the project


def _write(folder: Path, name: str, graph: bytes) -> Bundle:
    return write_bundle(folder / name, tiny_draft(name), {"detector.onnx": graph})


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A folder with two bundles as the package has one."""
    folder = tmp_path / "package"
    for name in ("extra", "starter-detector"):
        _write(folder, name, b"ours")
    return folder


def test_a_bundle_that_comes_with_the_project_is_opened_without_a_store(shipped: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", built_in=shipped)
    assert store.installed() == ()
    assert store.built_in() == store.available() == ("extra", "starter-detector")
    for bundle in (store.open("extra"), store.find("extra"), store.pull("extra")):
        assert bundle.path == shipped / "extra"
        assert store.brought(bundle)
    assert store.is_built_in("extra")
    assert not (tmp_path / "store").exists()


def test_one_that_the_user_installed_under_that_name_wins(shipped: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", built_in=shipped)
    mine = store.install("extra", lambda folder: _write(folder.parent, folder.name, b"mine"))
    assert store.open("extra").digest == mine.digest != open_bundle(shipped / "extra").digest
    assert store.available() == ("extra", "starter-detector")
    assert not store.is_built_in("extra")
    assert not store.brought(store.pull("extra"))
    with pytest.raises(UsageError, match="installed already"):
        store.install("extra", lambda folder: _write(folder.parent, folder.name, b"other"))
    mine.file("detector.onnx").write_bytes(b"changed")
    with pytest.raises(BundleTamperedError, match=r"remove .*extra, and the one that comes with Standin is used"):
        store.open("extra")


@pytest.mark.parametrize("options", [{"force": True}, {"source": "file.onnx"}])
def test_what_comes_with_the_project_is_not_fetched(shipped: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="'extra' cannot be pulled, it comes with Standin"):
        Store(tmp_path / "store", built_in=shipped).pull("extra", **options)


def test_a_built_in_bundle_that_was_changed_is_refused(shipped: Path, tmp_path: Path) -> None:
    (shipped / "extra" / "detector.onnx").write_bytes(b"changed")
    store = Store(tmp_path / "store", built_in=shipped)
    for look in (store.open, store.find, store.pull):
        with pytest.raises(BundleTamperedError, match=r"detector\.onnx was changed.* install Standin again"):
            look("extra")


def test_one_that_this_release_does_not_bring_is_named_with_what_to_do(shipped: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", built_in=shipped)
    for look in (store.open, store.find, store.pull):
        with pytest.raises(BundleMissingError, match="--engine starter-generator=FOLDER") as caught:
            look("starter-generator")
        assert "\n" not in str(caught.value)


def test_an_artefact_of_that_name_is_pulled_all_the_same(site: Site, shipped: Path, tmp_path: Path) -> None:
    known = {"extra": replace(site.artefact(), name="extra")}
    store = Store(tmp_path / "store", known=known, recipes={"tiny": copy_recipe}, built_in=shipped)
    assert store.brought(store.open("extra"))
    assert store.pull("extra").path == store.path("extra")
    assert len(site.requests) == 1


def test_every_bundle_that_comes_with_the_project_is_intact_and_known(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert set(store.built_in()) <= set(built_in())
    for name in store.built_in():
        bundle = store.open(name)
        assert bundle.manifest.name == name
        assert bundle.manifest.kinds == built_in()[name].kinds
        assert bundle.manifest.licence == built_in()[name].licence
