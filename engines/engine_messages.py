"""What an engine process and its clients say to each other: short JSON messages over a Unix socket.

Arrays are not in them, but in shared memory (`engines.shared_arrays`); a message may carry one descriptor of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engines import errors
from engines.errors import RuntimeFailedError, StandinError
from engines.runtime import Device
from engines.shared_arrays import ArraySpec

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of a message. The socket keeps messages apart (`SOCK_SEQPACKET`), so that none can be mistaken for another.
LONGEST: Final = 2**16
_LONGEST_TEXT: Final = 2000
_CREDENTIALS: Final = struct.Struct("3i")
_DESCRIPTOR: Final = struct.Struct("i")


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Ping(_Message):
    """Asks how the engine process is doing."""

    kind: Literal["ping"] = "ping"


class Open(_Message):
    """Asks for a graph of a bundle; all runs of this connection are of that graph.

    Attributes:
        bundle: absolute path of its folder.
        digest: of its manifest.
        graph: name in the manifest.
        device: to run on.
        threads: for one operator on the CPU; None for what the process was started with.
        spinning: see `engines.runtime_onnx`.
        bfloat16: see `engines.runtime_openvino`.
    """

    kind: Literal["open"] = "open"
    bundle: str = Field(max_length=4096)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    graph: str = Field(max_length=200)
    device: Device
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    spinning: bool
    bfloat16: bool = False


class Run(_Message):
    """Asks for one run of the graph on arrays in the client's memory."""

    kind: Literal["run"] = "run"
    number: int = Field(ge=0)
    arrays: tuple[ArraySpec, ...] = Field(max_length=256)


class Pulse(_Message):
    """How an engine process is doing.

    Attributes:
        device: that its engines run on.
        stalled: what hangs, and for how many seconds, or what lost the GPU, after which no run of the process can
            succeed; None where nothing did.
        clients: connections that wait for answers or may ask for one.
        engines: graphs that are loaded.
        requests: runs that clients asked for.
        runs: of engines; fewer where requests shared one.
        rows: of these runs together.
    """

    kind: Literal["pulse"] = "pulse"
    device: Device
    stalled: str | None = None
    clients: int = 0
    engines: int = 0
    requests: int = 0
    runs: int = 0
    rows: int = 0


class Opened(_Message):
    """The graph is ready.

    Attributes:
        provider: name of what executes it.
        limit: bytes of arrays in one message.
        largest: see `engines.runtime.Runtime.largest`.
    """

    kind: Literal["opened"] = "opened"
    provider: str
    limit: int = Field(gt=0)
    largest: dict[str, int] = Field(default_factory=dict, max_length=256)


class Done(_Message):
    """Outputs of the run of that number, in the engine process's memory."""

    kind: Literal["done"] = "done"
    number: int
    arrays: tuple[ArraySpec, ...] = Field(max_length=256)


class Failed(_Message):
    """Why something that was asked for was not done.

    Attributes:
        number: of the run, None where it was none.
        error: name of a class of `engines.errors`.
        text: its message.
    """

    kind: Literal["failed"] = "failed"
    number: int | None = None
    error: str = Field(max_length=100)
    text: str = Field(max_length=_LONGEST_TEXT)

    @classmethod
    def of(cls, error: Exception, number: int | None = None) -> Failed:
        """An error as it travels."""
        known = isinstance(error, StandinError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        name = type(error).__name__ if known else RuntimeFailedError.__name__
        return cls(number=number, error=name, text=" ".join(text.split())[:_LONGEST_TEXT])

    def exception(self) -> StandinError:
        """The error again, `RuntimeFailedError` where its class is not known."""
        found = getattr(errors, self.error, None)
        if isinstance(found, type) and issubclass(found, StandinError):
            return found(self.text)
        return RuntimeFailedError(self.text)


Question = Annotated[Ping | Open | Run, Field(discriminator="kind")]
Answer = Annotated[Pulse | Opened | Done | Failed, Field(discriminator="kind")]
QUESTIONS: Final[TypeAdapter[Ping | Open | Run]] = TypeAdapter(Question)
ANSWERS: Final[TypeAdapter[Pulse | Opened | Done | Failed]] = TypeAdapter(Answer)


def make_socket() -> socket.socket:
    """A Unix socket that keeps messages apart."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def is_same_user(connection: socket.socket) -> bool:
    """Whether the other end runs as the same user: raw pixels are nobody else's business."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(raw)[1] == os.geteuid())


def has_hung_up(connection: socket.socket) -> bool:
    """Whether the other end has gone, without taking what it said before."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def closing(descriptor: int | None) -> Iterator[None]:
    """Closes a descriptor of shared memory in the end, if there is one."""
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def send(connection: socket.socket, message: _Message, descriptor: int | None = None) -> None:
    """Says something. The descriptor stays the caller's, who closes it.

    Raises:
        RuntimeFailedError: The message is longer than any may be.
        OSError: The other end has gone, or does not listen in time.
    """
    raw = message.model_dump_json().encode()
    if len(raw) > LONGEST:
        raise RuntimeFailedError(f"a message would take {len(raw)} bytes, expected at most {LONGEST}")
    if descriptor is None:
        connection.send(raw)
    else:
        socket.send_fds(connection, [raw], [descriptor])


def receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Waits for a message.

    Returns:
        The message, empty where the other end has gone; and the descriptor that came with it, which the caller closes.

    Raises:
        OSError: The connection is broken, or nothing came in time.
        RuntimeFailedError: The message is longer than any may be.
    """
    # `socket.recv_fds` would leave the descriptor open in every process that this one starts: it drops the flags.
    raw, extra, flags, _ = connection.recvmsg(LONGEST, socket.CMSG_LEN(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC)
    descriptor = None
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) >= _DESCRIPTOR.size:
            (descriptor,) = _DESCRIPTOR.unpack_from(data)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        if descriptor is not None:
            os.close(descriptor)
        raise RuntimeFailedError(f"a message had more than {LONGEST} bytes or more than one descriptor")
    return raw, descriptor


def parse_question(raw: bytes) -> Ping | Open | Run:
    """What a client said.

    Raises:
        RuntimeFailedError: It makes no sense.
    """
    try:
        return QUESTIONS.validate_json(raw)
    except ValidationError as error:
        raise RuntimeFailedError(f"a client said what makes no sense ({_first(error)})") from None


def parse_answer(raw: bytes) -> Pulse | Opened | Done | Failed:
    """What an engine process said.

    Raises:
        RuntimeFailedError: It makes no sense.
    """
    try:
        return ANSWERS.validate_json(raw)
    except ValidationError as error:
        raise RuntimeFailedError(f"an engine process said what makes no sense ({_first(error)})") from None


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'message'}: {problem['msg']}"
