"""The config of `standin serve`: a TOML file to streams, their settings, and how they are watched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import UsageError
from stream.address import Address, Place, input_address, output_address, redacted
from stream.config import RunSettings, make_settings, read_toml
from stream.presets import did_you_mean
from stream.run_checks import check_settings
from stream.service.placeholders import Secrets
from stream.service.written import check_lasting, places

_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
_SECTIONS: Final = ("streams", "defaults", "status", "supervisor", "engine_process")
#: What a stream's table may hold besides settings.
_ENDS: Final = ("input", "output")
_SHORTEST_TOKEN: Final = 16

M = TypeVar("M", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SupervisorConfig(_Section):
    """How worker processes are watched.

    Attributes:
        silence: seconds without a frame after which a running worker is killed; longer than any frame may take.
        start: the same before the first frame, where engines are loaded.
        drain: seconds that a worker gets to end when it is asked to.
        longest_wait: seconds between two starts at most.
        attempts: starts in a row that may fail, None for any number.
        watch: whether the config file is read again when it changes, and not only at SIGHUP.
    """

    silence: float = Field(default=30.0, gt=0, le=86_400)
    start: float = Field(default=120.0, gt=0, le=86_400)
    drain: float = Field(default=2.0, ge=0, le=3600)
    longest_wait: float = Field(default=30.0, ge=0.25, le=3600)
    attempts: int | None = Field(default=None, ge=0)
    watch: bool = True


class StatusConfig(_Section):
    """Where the status page is.

    Attributes:
        host: address to listen on.
        port: 0 for any that is free.
        token_file: file with the token that changes need; without one there are no changes.
        allowed_hosts: further names under which it may be called, such as the machine's own.
        allow_paths: files, cameras and folders that streams which are added over the API may use.
        protect_reads: whether reading needs the token, None for yes where others can reach the host.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65_535)
    token_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    allow_paths: tuple[Path, ...] = ()
    protect_reads: bool | None = None

    def token(self) -> str | None:
        """What is in the file.

        Raises:
            UsageError: it cannot be read, or is too short to be a secret.
        """
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the token file {self.token_file}: {error}") from error
        if len(token) < _SHORTEST_TOKEN:
            raise UsageError(
                f"the token in {self.token_file} has {len(token)} characters; expected {_SHORTEST_TOKEN} or more, such "
                "as `openssl rand -hex 32` prints"
            )
        return token


class EngineConfig(_Section):
    """Engines in processes of their own, one for each device, that streams share.

    Attributes:
        threads: for one operator on the CPU, None for one per core.
        stall: seconds after which a run that has not returned counts as hung; longer than any honest one.
        silence: seconds without an answer after which a process is started again.
        longest_wait: seconds between two starts at most.
    """

    threads: int | None = Field(default=None, ge=1)
    stall: float = Field(default=30.0, gt=0, le=86_400)
    silence: float = Field(default=10.0, gt=0, le=86_400)
    longest_wait: float = Field(default=30.0, ge=0.25, le=3600)


@dataclass(frozen=True, slots=True)
class End:
    """Where a stream comes from or goes to.

    Attributes:
        text: with its secrets.
        shown: as the file has it, redacted.
    """

    text: str = field(repr=False)
    shown: str


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One stream.

    Attributes:
        name: of the stream.
        source: where it comes from.
        sinks: where it goes to.
        settings: of its run; paths in them are absolute.
    """

    name: str
    source: End
    sinks: tuple[End, ...]
    settings: RunSettings

    @property
    def outputs(self) -> tuple[Address, ...]:
        """The sinks' addresses, with their secrets."""
        return tuple(output_address(sink.text) for sink in self.sinks)

    @property
    def places(self) -> dict[str, str]:
        """What it alone may write to or listen on, and how that is shown."""
        files = (self.settings.report, self.settings.contact_sheet)
        shown = (*(sink.shown for sink in self.sinks), *(str(path) for path in files if path is not None))
        return dict(zip(places(self.outputs, self.settings), shown, strict=True))


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """Everything that a config file says.

    Attributes:
        streams: by name, in the order of the file.
        defaults: settings of streams that do not give them, for streams that are added later.
        supervisor: how workers are watched.
        status: where the status page is, None for nowhere.
        engines: how engines run in processes of their own, None where each stream runs them by itself.
        folder: that paths are relative to.
        secrets: what was put in the place of placeholders.
    """

    streams: Mapping[str, StreamConfig]
    defaults: Mapping[str, Any]
    supervisor: SupervisorConfig
    status: StatusConfig | None
    engines: EngineConfig | None
    folder: Path
    secrets: Secrets = field(repr=False, compare=False)


def read_serve_config(path: Path, environment: Mapping[str, str] = os.environ) -> ServeConfig:
    """Everything that a file says. Relative paths in it are relative to the file.

    Args:
        path: of a TOML file.
        environment: where `${NAME}` in addresses is looked up.

    Raises:
        UsageError: it cannot be read, is not TOML, holds an unknown key, or something that cannot be meant.
    """
    tables = _tables(read_toml(path), _SECTIONS, str(path))
    folder = path.absolute().parent
    secrets = Secrets(environment, folder)
    defaults = _plain(tables.get("defaults", {}))
    make_settings(RunSettings, defaults, origin=f"{path} [defaults]")
    engines = tables.get("engine_process")
    streams = {
        name: make_stream(name, table, defaults, folder, secrets=secrets, origin=f"{path} [streams.{name}]")
        for name, table in _tables(tables.get("streams", {}), None, f"{path} [streams]").items()
    }
    if not streams and "status" not in tables:
        raise UsageError(f"{path} has no [streams.NAME] table, and no [status] to add a stream through")
    check_sinks(streams.values(), origin=str(path))
    return ServeConfig(
        streams=streams,
        defaults=defaults,
        supervisor=_section(SupervisorConfig, tables.get("supervisor", {}), f"{path} [supervisor]"),
        status=_status(tables["status"], folder, f"{path} [status]") if "status" in tables else None,
        engines=None if engines is None else _section(EngineConfig, engines, f"{path} [engine_process]"),
        folder=folder,
        secrets=secrets,
    )


def make_stream(
    name: str,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    folder: Path,
    *,
    secrets: Secrets | None,
    origin: str,
) -> StreamConfig:
    """One stream from its table.

    Args:
        name: of the stream.
        values: `input`, `output` (one or a list), and settings.
        defaults: settings that are not given there.
        folder: that relative paths are relative to.
        secrets: of the file, None where placeholders are not allowed: whoever may add a stream from outside must not
            read the environment that way.
        origin: where the values come from, for messages.

    Raises:
        UsageError: something is missing, unknown, or cannot be meant.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{origin}: {name!r} is no stream's name; expected up to 64 of a-z, 0-9, - and _")
    given = _plain(values)
    _check_names(given, (*_ENDS, *RunSettings.model_fields), origin)
    ends = {key: _texts(given.pop(key, None), key, origin) for key in _ENDS}
    if len(ends["input"]) != 1:
        raise UsageError(f"{origin}: input is a list; a stream has one")
    settings = make_settings(RunSettings, {**defaults, **given}, origin=origin)
    try:
        stream = StreamConfig(
            name,
            _end(ends["input"][0], input_address, folder, secrets),
            tuple(_end(text, output_address, folder, secrets) for text in ends["output"]),
            _placed(settings, folder),
        )
        _check_stream(stream)
    except UsageError as error:
        text = redacted(str(error)) if secrets is None else secrets.hide(str(error))
        raise UsageError(f"{origin}: {text}") from None
    return stream


def in_force(config: ServeConfig) -> RunSettings:
    """Settings of a stream that gives none; paths in them are absolute."""
    return _placed(make_settings(RunSettings, config.defaults, origin="[defaults]"), config.folder)


def check_sinks(streams: Iterable[StreamConfig], *, origin: str) -> None:
    """No two streams write to one place, or listen on one port.

    Raises:
        UsageError: two do.
    """
    taken: dict[str, str] = {}
    for stream in streams:
        for place, shown in stream.places.items():
            first = taken.setdefault(place, stream.name)
            if first != stream.name:
                what = f"listen on {place}: {shown}" if place.startswith("port ") else f"write to {shown}"
                raise UsageError(f"{origin}: {first} and {stream.name} both {what}; give each one of its own")


def haste(streams: Iterable[StreamConfig], supervisor: SupervisorConfig) -> str | None:
    """A warning where honest workers would be killed, since a stage may take as long as its deadline; else None."""
    slow = [f"{s.name} ({s.settings.deadline:g} s)" for s in streams if s.settings.deadline > supervisor.silence]
    if not slow:
        return None
    return (
        f"[supervisor] silence = {supervisor.silence:g} is shorter than the deadline of {', '.join(slow)}: workers "
        "that are only slow are killed; raise silence"
    )


def _check_stream(stream: StreamConfig) -> None:
    check_lasting(stream.outputs, stream.settings)
    # What is refused when a run begins would end a good stream at a reload.
    check_settings(input_address(stream.source.text), stream.outputs, stream.settings)


def _tables(values: Mapping[str, Any], names: Iterable[str] | None, origin: str) -> dict[str, Mapping[str, Any]]:
    """Tables by name; any name where None are given."""
    # Names of streams stay as they are.
    given = dict(values) if names is None else _plain(values)
    if names is not None:
        _check_names(given, names, origin)
    for name, table in given.items():
        if not isinstance(table, Mapping):
            raise UsageError(f"{origin}: {name} is not a table; expected [{name}] with lines of `key = value` below it")
    return given


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """`-` in keys counts as `_`."""
    return {key.replace("-", "_"): value for key, value in values.items()}


def _check_names(given: Iterable[str], known: Iterable[str], origin: str) -> None:
    known = tuple(known)
    for name in given:
        if name not in known:
            raise UsageError(f"{origin}: unknown key {name!r}: {did_you_mean(name, known)}")


def _section(kind: type[M], values: Mapping[str, Any], origin: str) -> M:
    named = _plain(values)
    _check_names(named, kind.model_fields, origin)
    try:
        return kind.model_validate(named)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{origin}: {place}: {first['msg']}, got {first['input']!r}") from error


def _status(values: Mapping[str, Any], folder: Path, origin: str) -> StatusConfig:
    status = _section(StatusConfig, values, origin)
    token_file = status.token_file and folder / status.token_file
    placed = {"token_file": token_file, "allow_paths": tuple(folder / path for path in status.allow_paths)}
    status = status.model_copy(update=placed)
    status.token()
    return status


def _texts(value: object, key: str, origin: str) -> tuple[str, ...]:
    """One address or several."""
    texts = value if isinstance(value, list | tuple) else [value]
    if value is None or not texts or not all(isinstance(text, str) and text for text in texts):
        expected = "a file or a URL, or a list of them" if key == "output" else "a file or a URL"
        raise UsageError(f"{origin}: {key} must be {expected}, got {redacted(repr(value))}")
    if len(set(texts)) < len(texts):
        raise UsageError(f"{origin}: {key} names the same place twice")
    return tuple(texts)


def _end(text: str, parse: Any, folder: Path, secrets: Secrets | None) -> End:
    if secrets is None and "${" in text:
        raise UsageError(f"{redacted(text)} has a placeholder, which only the config file may have")
    address: Address = parse(text if secrets is None else secrets.expand(text))
    if address.place is Place.PIPE:
        raise UsageError("- is standard input or output, which streams of a service do not have")
    # What is shown is what the file has, where placeholders stand for secrets.
    shown = str(replace(address, text=text))
    if address.place is Place.FILE:
        # A slash at the end says that it is a folder.
        return End(f"{folder / address.path}{'/' * address.text.endswith('/')}", shown)
    return End(address.text, shown)


def _placed(settings: RunSettings, folder: Path) -> RunSettings:
    """Relative paths, made absolute."""
    changes: dict[str, Any] = {name: folder / value for name, value in settings if isinstance(value, Path)}
    if settings.engine:
        changes["engine"] = {name: folder / place for name, place in settings.engine.items()}
    if settings.detector:
        # A name is in the store wherever the file is.
        changes["detector"] = tuple(str(folder / text) if "/" in text else text for text in settings.detector)
    return settings.model_copy(update=changes)
