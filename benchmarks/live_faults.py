"""Live, with faults: a camera and a server that are killed and started again while `standin run` stands between them.

    python -m benchmarks.live_faults --minutes 10 --kills 20 --save
    python -m benchmarks.live_faults --minutes 60 --kills 0 --save      a soak
    python -m benchmarks.live_faults --minutes 1 --kills 0 --control    must find raw frames

The camera is a real RTSP server with a key frame a second; what arrives at the other RTSP server is decoded and matched
frame by frame to what the camera sent, by the number that is burned in. Reported: how long after a peer listened again
anonymized frames flowed, raw frames, and what the run's process needs over time. The exit code is 1 where something is
not as it must be; `missed` says what.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import save
from benchmarks.live_peers import write_packets
from benchmarks.live_scene import Scene, encode
from stream.gst_path import variables

#: Seconds that a peer stays away, at least and at most.
_AWAY = (0.5, 3.0)
#: Seconds of quiet before the first kill, and at least between two.
_QUIET = 8.0
#: What must hold: seconds until frames flow again, share of frames that are matched, seconds to end,
_LONGEST_RECOVERY, _LEAST_MATCHED, _LONGEST_END = 5.0, 0.9, 3.0
#: and growth in MiB, or as a share if that is more.
_MOST_GROWTH, _MOST_GROWTH_SHARE = 10.0, 0.02


@dataclass
class Peer:
    """A process that prints JSON lines, and can be killed and started again.

    Attributes:
        command: to start it.
        events: what it printed, of all its lives.
    """

    command: list[str]
    environment: dict[str, str] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Starts it; the time at which it listened."""
        known = len(self.events)
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, env=self.environment)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        end = time.monotonic() + 60
        while True:
            if times := [event["listening"] for event in self.events[known:] if "listening" in event]:
                return float(times[0])
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.command[-4:]} does not listen")
            time.sleep(0.02)

    def kill(self) -> None:
        """Without any farewell."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                # The last one of a life may be torn.
                with contextlib.suppress(json.JSONDecodeError):
                    self.events.append(json.loads(line))


@dataclass(frozen=True, slots=True)
class Load:
    """What a process held at one moment."""

    at: float
    memory: int
    threads: int
    descriptors: int


def watch(process: subprocess.Popen[Any], loads: list[Load]) -> None:
    """Notes what a process holds, once a second, until it ends."""
    folder = Path(f"/proc/{process.pid}")
    while process.poll() is None:
        # Between its end and our seeing it, a process has no memory.
        with contextlib.suppress(OSError, KeyError):
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            loads.append(
                Load(
                    time.monotonic(),
                    int(status["VmRSS"].split()[0]) * 1024,
                    int(status["Threads"]),
                    len(os.listdir(folder / "fd")),
                )
            )
        time.sleep(1.0)


def kills(count: int, seconds: float, seed: int) -> list[tuple[float, str]]:
    """When which peer is killed: each of them so often, at random, never two at once."""
    if not count:
        return []
    draw = random.Random(seed)  # noqa: S311  not for secrets
    total = 2 * count
    span = seconds - 2 * _QUIET - total * _QUIET
    if span < 0:
        raise SystemExit(f"{count} kills of each peer need {(total + 2) * _QUIET / 60:.1f} minutes at least")
    times = sorted(draw.uniform(0, span) for _ in range(total))
    names = ["camera", "server"] * count
    draw.shuffle(names)
    return [(_QUIET + index * _QUIET + at, name) for index, (at, name) in enumerate(zip(times, names, strict=True))]


def recovery(listening: float, frames: Sequence[dict[str, Any]], good: str) -> float | None:
    """Seconds from then until the first frame that is neither flat nor unmatched, None if none came."""
    return next((f["frame"] - listening for f in frames if f["frame"] >= listening and f["verdict"] == good), None)


def free_port() -> int:
    """A port of loopback that nobody uses at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def _peers(folder: Path) -> Iterator[tuple[Peer, Peer, str, str]]:
    pictures = folder / "packets.bin"
    write_packets(pictures, encode(Scene()))
    ports = free_port(), free_port()
    program = [sys.executable, "-m", "benchmarks.live_peers"]
    camera = Peer([*program, "camera", "--port", str(ports[0]), "--pictures", str(pictures)], os.environ | variables())
    server = Peer([*program, "server", "--port", str(ports[1])])
    try:
        yield camera, server, f"rtsp://127.0.0.1:{ports[0]}/camera", f"rtsp://127.0.0.1:{ports[1]}/out"
    finally:
        camera.kill()
        server.kill()


def measure(minutes: float, count: int, seed: int, options: Sequence[str], *, control: bool = False) -> dict[str, Any]:
    """One run between two peers.

    Args:
        minutes: that it lasts.
        count: how often each peer is killed.
        seed: of the times.
        options: further ones of `standin run`.
        control: leave everybody raw, to see that this is found.
    """
    good = "raw" if control else "covered"
    keep = ["--face", "keep", "--person", "keep"] if control else []
    with tempfile.TemporaryDirectory() as folder, _peers(Path(folder)) as (camera, server, source, sink):
        plan = kills(count, minutes * 60, seed)
        server.start()
        camera.start()
        command = [sys.executable, "-m", "stream", "run", source, sink, "--lookahead", "0", "--seed", "1"]
        run = subprocess.Popen([*command, *keep, *options], stderr=subprocess.PIPE, text=True)
        loads: list[Load] = []
        threading.Thread(target=watch, args=(run, loads), daemon=True).start()
        try:
            began = _first(server, run, good)
            back = [_kill(camera if name == "camera" else server, name, began + at) for at, name in plan]
            time.sleep(max(0.0, began + minutes * 60 - time.monotonic()))
            asked = time.monotonic()
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=20)
            ended = time.monotonic() - asked
        finally:
            run.kill()
            run.wait()
        frames = [event for event in server.events if "frame" in event]
    result = {
        "minutes": minutes,
        "kills_of_each": count,
        "options": list(options),
        "control": control,
        "exit_code": run.returncode,
        "seconds_to_end": round(ended, 2),
        **_frames(frames),
        **{
            f"recovery_{peer}": _times([(at, name) for at, name in back if name == peer], frames, good)
            for peer in ("camera", "server")
        },
        **_loads([load for load in loads if load.at < asked]),
        "said": said.splitlines()[-20:],
    }
    return result | {"missed": missed(result, control=control)}


def missed(result: dict[str, Any], *, control: bool = False) -> list[str]:
    """What is not as it must be.

    Args:
        result: of a run.
        control: in which everybody was left raw.
    """
    if control:
        return [] if result["raw"] and not result["verdicts"].get("covered") else ["the control found nobody raw"]
    longest = max((result[f"recovery_{peer}"]["longest"] or 0.0 for peer in ("camera", "server")), default=0.0)
    never = sum(result[f"recovery_{peer}"]["never"] for peer in ("camera", "server"))
    memory = result["memory_mib"]
    most = max(_MOST_GROWTH, _MOST_GROWTH_SHARE * memory["before"])
    bounds = {
        f"{result['raw']} raw frames": result["raw"] == 0,
        "no frame was anonymized": result["verdicts"].get("covered", 0) > 0,
        f"{result['matched']:.0%} of frames were matched": result["matched"] >= _LEAST_MATCHED,
        f"{never} times no frame came any more": never == 0,
        f"it took {longest} s until frames flowed again": longest <= _LONGEST_RECOVERY,
        f"it took {result['seconds_to_end']} s to end": result["seconds_to_end"] <= _LONGEST_END,
        f"memory grew by {memory['growth']} MiB": memory["growth"] <= most,
        f"threads: {result['threads']}": len(set(result["threads"])) == 1,
        f"descriptors: {result['descriptors']}": len(set(result["descriptors"])) == 1,
    }
    return [what for what, holds in bounds.items() if not holds]


def _first(server: Peer, run: subprocess.Popen[str], good: str) -> float:
    end = time.monotonic() + 60
    while not any(event.get("verdict") == good for event in list(server.events)):
        if run.poll() is not None or time.monotonic() > end:
            raise RuntimeError("the run gave no frame")
        time.sleep(0.1)
    return time.monotonic()


def _kill(peer: Peer, name: str, at: float) -> tuple[float, str]:
    time.sleep(max(0.0, at - time.monotonic()))
    peer.kill()
    time.sleep(random.Random(at).uniform(*_AWAY))  # noqa: S311  not for secrets
    return peer.start(), name


def _frames(frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    verdicts = Counter(frame["verdict"] for frame in frames)
    shown = sum(verdicts.values()) - verdicts["flat"]
    return {
        "frames": len(frames),
        "verdicts": dict(verdicts),
        "matched": round(1 - verdicts["unknown"] / shown, 4) if shown else 0.0,
        "most_unchanged": max((frame["unchanged"] for frame in frames), default=0.0),
        "raw": verdicts["raw"],
    }


def _times(back: Sequence[tuple[float, str]], frames: Sequence[dict[str, Any]], good: str) -> dict[str, Any]:
    took = [recovery(listening, frames, good) for listening, _ in back]
    known = sorted(seconds for seconds in took if seconds is not None)
    return {
        "times": len(took),
        "never": took.count(None),
        "median": round(statistics.median(known), 2) if known else None,
        "longest": round(known[-1], 2) if known else None,
    }


def _loads(loads: Sequence[Load]) -> dict[str, Any]:
    """Early (minutes 2 and 3) and late (the last one); of a run that is shorter, the second and the last quarter."""
    begin, end = loads[0].at, loads[-1].at
    if end - begin >= 240:
        early = [load for load in loads if 60 <= load.at - begin < 180]
        late = [load for load in loads if load.at > end - 60]
    else:
        quarter = max(1, len(loads) // 4)
        early, late = list(loads[quarter : 2 * quarter]) or list(loads), list(loads[-quarter:])
    before, after = (statistics.median(load.memory for load in part) / 2**20 for part in (early, late))
    return {
        "memory_mib": {"before": round(before, 1), "after": round(after, 1), "growth": round(after - before, 1)},
        "memory_mib_by_minute": [
            round(statistics.median(load.memory for load in minute) / 2**20, 1)
            for _, minute in itertools.groupby(loads, lambda load: int((load.at - begin) // 60))
        ],
        "threads": [_usual([load.threads for load in part]) for part in (early, late)],
        "descriptors": [_usual([load.descriptors for load in part]) for part in (early, late)],
    }


def _usual(counts: Sequence[int]) -> int:
    """What is held while every peer is there: while one is away, there is a connection less, now and then one more."""
    return sorted(counts)[3 * len(counts) // 4]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit code whether what must hold does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=20, help="of each peer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true", help="leave everybody raw")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/live-faults.json")
    parser.add_argument("options", nargs="*", help="further options of standin run, after --")
    given = parser.parse_args(arguments)
    result = measure(given.minutes, given.kills, given.seed, given.options, control=given.control)
    print(json.dumps(result, indent=1))
    if given.save:
        save("live-faults" if given.kills else "live-soak", result)
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
