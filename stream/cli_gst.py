"""`standin gst-path`: what a shell needs to run pipelines with the element."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from stream.gst_path import PLUGINS, check_tools, variables


def gst_path_command(
    shell: Annotated[bool, typer.Option("--shell", help="Print the variables, for eval.")] = False,
) -> None:
    """Print where GStreamer finds the element `standin`."""
    if not shell:
        typer.echo(PLUGINS)
        return
    check_tools()
    for name, value in variables().items():
        typer.echo(f"export {name}={shlex.quote(value)}")
