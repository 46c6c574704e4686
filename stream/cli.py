"""The command line: `standin run` and the other commands. Only the modules named `cli` and `doctor` print.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but frames were withheld, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.logging import RichHandler

from engines.errors import StandinError
from stream import (
    cli_batch,
    cli_bench,
    cli_engines,
    cli_evaluate,
    cli_export,
    cli_generate,
    cli_gst,
    cli_run,
    cli_serve,
    cli_verify,
    doctor,
)
from stream.terminal import EXIT_FAILED, EXIT_USAGE, error_console, say

app = typer.Typer(
    name="standin",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Replaces the people in video with synthetic stand-ins, and fails closed: what could not be looked at "
    "never leaves raw.",
)
app.add_typer(cli_engines.app, name="engines")
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_evaluate.app, name="evaluate")


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
        from stream.report import versions

        typer.echo(f"standin {versions()['standin']}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the command."""


app.command("run")(cli_run.run_command)
app.command("serve")(cli_serve.serve_command)
app.command("batch")(cli_batch.batch_command)
app.command("verify")(cli_verify.verify_command)
app.command("generate")(cli_generate.generate_command)
app.command("export")(cli_export.export_command)
app.command("gst-path")(cli_gst.gst_path_command)


@app.command("doctor")
def doctor_command() -> None:
    """Print what is installed and usable, and what to do about what is not."""
    raise typer.Exit(doctor.doctor_command())


if __name__ == "__main__":
    main()
