"""What the commands share: how errors are shown, and what exit codes mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines import own_process

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_WITHHELD: Final = 3
EXIT_INTERRUPTED: Final = own_process.EXIT_INTERRUPTED
#: What moves the cursor, clears the screen or sets the title: C0, DEL and C1.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def error_console() -> Console:
    """Standard error, one line a message however long it is."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def visible(text: str) -> str:
    """A text whose control characters are read, not obeyed: a file's name may hold any of them."""
    return text.translate(_CONTROLS)


def say(console: Console, text: str) -> None:
    """Whatever went wrong is one line for the user."""
    console.print(f"standin: {visible(' '.join(text.split()))}", markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain texts.

    Args:
        title: above it.
        columns: their names.
        rows: a text for each column.
    """
    made = Table(title=Text(title), title_justify="left")
    for column in columns:
        # Folded, never cut with an ellipsis: half a hash is of no use.
        made.add_column(column, overflow="fold")
    for row in rows:
        # As Text: a bracket in a path or a reason is no markup.
        made.add_row(*map(Text, row))
    return made
