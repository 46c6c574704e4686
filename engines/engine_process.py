"""One process per device that runs the engines of several streams' processes, so that they share batches.

python -m engines.engine_process --socket PATH --device cpu

Where an engine takes the process down or hangs, the streams withhold frames until whoever owns this process has started
another one. It ends when its standard input does, if `--owned` says that this is a pipe from its owner.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

from engines.batching import Limits
from engines.engine_client import ping
from engines.engine_server import EngineServer, ServerSettings
from engines.errors import RuntimeFailedError, RuntimeUnavailableError, StandinError, UsageError
from engines.own_process import dump_no_core
from engines.private_socket import check_path
from engines.runtime import DEVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.engine_messages import Pulse
    from engines.runtime import Device

log = logging.getLogger(__name__)

#: Rows of a run that requests share on a GPU.
_MOST_ROWS: Final = 8
_WAIT: Final = 0.002
_MEBIBYTE: Final = 2**20
#: Lines of a process that are logged, and bytes of each.
_MOST_LINES: Final = 1000
_LONGEST_LINE: Final = 1000


def settings_for(device: Device, threads: int | None = None) -> ServerSettings:
    """What suits a device.

    On a CPU nothing is joined: it takes longer, and rows of a joint run may differ in their last bits from those of
    single ones. Engines run side by side instead. CUDA takes what waits in one run, and so does TensorRT with as many
    rows as a plan takes; an engine that plans anew for each number of rows joins nothing (`engines.engine_pool`).

    Args:
        device: That engines run on.
        threads: For one operator on the CPU; all cores if None.

    Raises:
        UsageError: There is no such device, or `threads` is below 1.
    """
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is not known; expected one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; expected at least 1, or nothing for all cores")
    if device in ("cuda", "tensorrt"):
        return ServerSettings(device, threads, Limits(_MOST_ROWS, _WAIT, 1))
    return ServerSettings(device, threads, Limits(1, 0.0, len(os.sched_getaffinity(0))))


@dataclass
class EngineProcess:
    """An engine process that this one owns: it ends with its owner. Made by `start_engine_process`.

    Any thread may ask for its pulse; one at a time starts and ends it.

    Attributes:
        path: of its socket.
        settings: how it serves.
        restarts: how often it was started again.
    """

    path: Path
    settings: ServerSettings
    restarts: int = 0

    def __post_init__(self) -> None:
        self._process = self._start()

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether there is a process; what it does, only its pulse says."""
        return self._process.poll() is None

    def pulse(self, timeout: float = 1.0) -> Pulse:
        """How it is doing.

        Args:
            timeout: Seconds that it may take to answer.

        Raises:
            RuntimeFailedError: It has ended, is silent, a run in it hangs, or it lost the GPU: start it again.
        """
        if not self.is_alive:
            raise RuntimeFailedError(f"the engine process has ended ({_how_it_ended(self._process.returncode)})")
        pulse = ping(self.path, timeout)
        if pulse.stalled is not None:
            raise RuntimeFailedError(f"the engine process is stuck: {pulse.stalled}")
        return pulse

    def wait_until_ready(self, timeout: float = 30.0) -> None:
        """Waits until it listens.

        Args:
            timeout: Seconds.

        Raises:
            RuntimeUnavailableError: It ended, or does not listen in time.
        """
        until = time.monotonic() + timeout
        while True:
            try:
                self.pulse()
            except RuntimeFailedError as error:
                if not self.is_alive or time.monotonic() > until:
                    raise RuntimeUnavailableError(f"no engine process for {self.settings.device}: {error}") from None
                time.sleep(0.02)
            else:
                return

    def restart(self) -> None:
        """Kills it, whatever it does, and starts another one. Its clients come back by themselves.

        Raises:
            OSError: No process can be started.
        """
        self.kill()
        self._process = self._start()
        self.restarts += 1

    def kill(self) -> None:
        """Ends it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._let_go()

    def close(self, timeout: float = 3.0) -> None:
        """Lets it end, and kills it if it does not. May be called again.

        Args:
            timeout: Seconds that it may take.
        """
        if self._process.poll() is None:
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        given = self.settings
        options = {
            "socket": self.path,
            "device": given.device,
            "threads": given.threads,
            "rows": given.limits.most_rows,
            "wait": given.limits.wait,
            "side-by-side": given.limits.side_by_side,
            "stall": given.stall,
            "memory": -(-given.memory // _MEBIBYTE),
            "clients": given.most_clients,
        }
        arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
        # It runs while the pipe to its standard input is open, which the system closes however this process ends.
        process = subprocess.Popen(
            [sys.executable, "-m", "engines.engine_process", *arguments, "--owned"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = cast("IO[bytes]", process.stdout)
        reader = threading.Thread(target=_log_lines, args=(said, given.device), name="standin-engine-log", daemon=True)
        reader.start()
        return process

    def _let_go(self) -> None:
        # A process that was killed may take a moment to hand back a device; one that cannot is left to the system.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        if self._process.stdin is not None:
            self._process.stdin.close()


def start_engine_process(path: Path, settings: ServerSettings) -> EngineProcess:
    """Starts an engine process, and does not wait for it: its clients do.

    Args:
        path: Of its socket, in a folder of its own that is made if missing.
        settings: How it serves; `settings_for` gives those that suit a device.

    Raises:
        UsageError: Nothing can listen at the path.
        OSError: No process can be started.
    """
    check_path(path)
    return EngineProcess(path, settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to end; the process's exit code.

    Args:
        arguments: Of the command line, without the program's name.
    """
    dump_no_core()
    options = _parse(arguments)
    # Who owns it logs what it says, in a form of its own.
    time_first = "" if options.owned else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=f"{time_first}%(levelname)s %(message)s")
    try:
        server = EngineServer(options.socket, _settings(options))
        signal.signal(signal.SIGTERM, lambda _number, _frame: server.stop())
        # Ctrl-C in a terminal reaches every process: whoever started this one decides when it ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN if options.owned else lambda _number, _frame: server.stop())
        server.serve(sys.stdin.fileno() if options.owned else None)
    except StandinError as error:
        log.error("%s", error)  # noqa: TRY400  what the user did wrong needs no trace
        return error.exit_code
    except OSError as error:
        log.error("nothing can listen at %s: %s", options.socket, error.strerror or error)  # noqa: TRY400
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engines.engine_process", description="Runs engines for others.")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen: a path in a folder of its own")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--threads", type=int, help="for one operator on the CPU (default: all cores)")
    parser.add_argument("--rows", type=int, help="of a run that requests share; 1 shares none")
    parser.add_argument("--wait", type=float, help="seconds that a request waits for others")
    parser.add_argument("--side-by-side", type=int, help="runs of a graph that may be under way together")
    parser.add_argument("--stall", type=float, help="seconds after which a run counts as hung")
    parser.add_argument("--memory", type=int, help="MiB of arrays that one message may have")
    parser.add_argument("--clients", type=int, help="connections at a time")
    parser.add_argument("--owned", action="store_true", help="end when standard input does")
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> ServerSettings:
    usual = settings_for(options.device, options.threads)
    limits = {"most_rows": options.rows, "wait": options.wait, "side_by_side": options.side_by_side}
    memory = None if options.memory is None else options.memory * _MEBIBYTE
    others = {"stall": options.stall, "memory": memory, "most_clients": options.clients}
    try:
        chosen = replace(usual.limits, **{name: value for name, value in limits.items() if value is not None})
        return replace(usual, limits=chosen, **{name: value for name, value in others.items() if value is not None})
    except ValueError as error:
        raise UsageError(str(error)) from None


def _log_lines(pipe: IO[bytes], device: Device) -> None:
    """Logs what an engine process says, until it ends; native libraries may have much to say."""
    levels, count = logging.getLevelNamesMapping(), 0
    with pipe:
        while line := pipe.readline(_LONGEST_LINE):
            text = " ".join(line.decode("utf-8", "replace").split())
            count += 1
            if not text or count > _MOST_LINES:
                continue
            first, _, rest = text.partition(" ")
            level = levels.get(first)
            log.log(level or logging.INFO, "engine process for %s: %s", device, rest if level else text)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


if __name__ == "__main__":
    ended_with = main()
    # Nothing is taken apart: a call into an engine that hangs must not hold the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended_with)
