from __future__ import annotations

from pathlib import Path

import filelock
import pytest

from engines.plan_build import LOCK_NAME
from engines.plan_prune import alone_in, folders_elsewhere
from engines.plans import BUNDLES_NAME, noted_bundles, plans_folder
from tests.engines.tensorrt_machines import FakeMachine, tiny_machine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A bundle that is not ours to write to, with a plan in the user's folder."""
    made = tiny_machine(tmp_path / "made")
    monkeypatch.setattr("engines.plans.BUILT_IN", made.bundle.path.parent)
    made.folder = plans_folder(made.bundle, tmp_path / "home")
    made.build()
    return made


def test_a_folder_of_the_users_says_where_its_bundles_lie(machine: FakeMachine) -> None:
    machine.build()
    assert noted_bundles(machine.folder) == (machine.bundle.path,)
    copy = machine.bundle.path.with_name("copy")
    machine.bundle = type(machine.bundle)(copy, machine.bundle.manifest, machine.bundle.digest)
    machine.build()
    assert noted_bundles(machine.folder) == (copy.with_name("bundle"), copy)


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"7", b"[" * 100_000, b'[7, null, "a"]'])
def test_what_says_nothing_of_bundles_is_not_believed(machine: FakeMachine, content: bytes) -> None:
    (machine.folder / BUNDLES_NAME).write_bytes(content)
    assert noted_bundles(machine.folder) in ((), (Path("a"),))


def test_a_bundles_own_folder_says_nothing(tmp_path: Path) -> None:
    inside = tiny_machine(tmp_path)
    inside.build()
    assert not (inside.folder / BUNDLES_NAME).exists()


def test_plans_of_a_bundle_elsewhere_are_looked_at_and_those_of_none_are_all_useless(
    machine: FakeMachine, tmp_path: Path
) -> None:
    home, target = tmp_path / "home", machine.builder().target
    (look,) = folders_elsewhere(home, (), target).values()
    assert look() == []
    assert folders_elsewhere(home, (machine.folder,), target) == {}
    machine.bundle.path.rename(tmp_path / "away")
    (look,) = folders_elsewhere(home, (), target).values()
    assert [plan.reason for plan in look()] == ["the bundle that it was built from is not there"]


def test_who_builds_in_a_folder_is_not_disturbed(machine: FakeMachine, tmp_path: Path) -> None:
    with alone_in(machine.folder) as alone:
        assert alone
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(machine.folder / LOCK_NAME, blocking=False).acquire()
    with filelock.FileLock(machine.folder / LOCK_NAME), alone_in(machine.folder) as alone:
        assert not alone
    with alone_in(tmp_path / "nothing") as alone:
        assert alone
    assert not (tmp_path / "nothing").exists()
