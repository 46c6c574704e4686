from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engines.engine_messages import make_socket
from engines.errors import UsageError
from engines.private_socket import check_path, listen


def reaches(path: Path) -> bool:
    with make_socket() as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_it_listens_in_a_folder_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "engine"
    with listen(path):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert reaches(path)
    assert not path.exists()


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(UsageError, match="chmod 700"), listen(folder / "engine"):
        pass
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(UsageError, match="open to others"), listen(tmp_path / "link" / "engine"):
        pass


def test_the_socket_of_a_process_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "engine"
    code = (
        "import sys, time; from pathlib import Path; from engines.private_socket import listen\n"
        "with listen(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert reaches(path)
    process.kill()
    process.wait()
    process.stdout.close()
    assert path.exists()
    assert not reaches(path)
    with listen(path):
        assert reaches(path)


def test_two_cannot_listen_at_one_address_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "engine"
    with listen(path):
        with pytest.raises(UsageError, match="another engine process listens"), listen(path):
            pass
        assert reaches(path)


@pytest.mark.parametrize("name", ["engine", "/" + "x" * 103])
def test_a_path_that_cannot_be_a_sockets_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="absolute path of at most 103 bytes"):
        check_path(Path(name))


def test_the_longest_path_that_is_accepted_can_be_listened_at(tmp_path: Path) -> None:
    path = tmp_path / "run" / ("x" * (103 - len(os.fsencode(tmp_path)) - 5))
    check_path(path)
    with listen(path):
        assert reaches(path)
