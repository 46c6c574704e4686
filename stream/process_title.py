"""Process title: what others on this machine see of a command, by `ps` and the like, without its secrets."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import setproctitle

from stream.address import shown


def hide_secrets(arguments: Sequence[str]) -> None:
    """Replace this process's command line by one without secrets, if it has any.

    Until then, so for the moment that Python needs to start, everybody could see it.

    Args:
        arguments: of the command, with its name.
    """
    if any(argument != shown(argument) for argument in arguments):
        setproctitle.setproctitle(title(arguments))


def title(arguments: Sequence[str]) -> str:
    """A command line as it may be shown.

    Args:
        arguments: of the command, with its name.
    """
    return shlex.join(shown(argument) for argument in arguments)
