"""The command line: `standin run` and the other commands. Only the modules named `cli` and `doctor` print.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but frames were withheld, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from typing import Annotated, Any, Final

import typer
from rich.logging import RichHandler
from typer.core import TyperGroup

from engines.errors import StandinError
from engines.own_process import be_interrupted
from stream.terminal import EXIT_FAILED, EXIT_USAGE, error_console, say

#: Modules and what in them is a command, or a group of commands, in the order of the help.
_COMMANDS: Final = {
    "run": ("stream.cli_run", "run_command"),
    "serve": ("stream.cli_serve", "serve_command"),
    "batch": ("stream.cli_batch", "batch_command"),
    "verify": ("stream.cli_verify", "verify_command"),
    "generate": ("stream.cli_generate", "generate_command"),
    "export": ("stream.cli_export", "export_command"),
    "gst-path": ("stream.cli_gst", "gst_path_command"),
    "doctor": ("stream.cli", "doctor_command"),
    "engines": ("stream.cli_engines", "app"),
    "bench": ("stream.cli_bench", "app"),
    "evaluate": ("stream.cli_evaluate", "app"),
}


#: These leave nothing behind and import libraries to see whether they are there, which Ctrl-C must not deny.
_ONLY_LOOK: Final = ("doctor",)


class _OnDemand(Mapping[str, Any]):
    """Commands by name, each imported when it is asked for: together they take several times as long."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            module, attribute = _COMMANDS[name]
            found = getattr(import_module(module), attribute)
            holder = typer.Typer()
            # With a callback, or it would be the command itself.
            holder.callback()(lambda: None)
            if isinstance(found, typer.Typer):
                holder.add_typer(found, name=name)
            else:
                holder.command(name)(found)
            self._made[name] = typer.main.get_group(holder).commands[name]
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Root(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _OnDemand()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Imports the command that is asked for, and lets Ctrl-C be what it is for it."""
        found = super().resolve_command(ctx, args)
        if found[0] not in _ONLY_LOOK:
            be_interrupted()
        return found


app = typer.Typer(
    name="standin",
    cls=_Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Replaces the people in video with synthetic stand-ins, and fails closed: what could not be looked at "
    "never leaves raw.",
)


def main() -> None:
    """Entry point of the console script."""
    errors = error_console()
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=errors, show_time=False, show_path=False, markup=False)],
    )
    try:
        code = app(standalone_mode=False)
    except StandinError as error:
        say(errors, str(error))
        code = error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        code = EXIT_FAILED
    except OSError as error:
        say(errors, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        code = EXIT_FAILED
    except Exception as error:
        # Typer's own complaints about the command line; where their base class lives depends on its release.
        if not hasattr(error, "format_message"):
            raise
        code = EXIT_USAGE
        # Empty where it has printed the help instead.
        if text := error.format_message():
            say(errors, text.replace("Value error, ", ""))
    sys.exit(code or 0)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"standin {metadata.version('standin')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def doctor_command() -> None:
    """Print what is installed and usable, and what to do about what is not."""
    from stream import doctor

    raise typer.Exit(doctor.doctor_command())


if __name__ == "__main__":
    main()
