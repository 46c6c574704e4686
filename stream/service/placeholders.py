"""Secrets of a config file: `${NAME}` stands for what the environment or a file holds, so the file can be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from engines.errors import UsageError
from stream.address import redacted

#: `$${` stands for `${` itself.
_PLACEHOLDER: Final = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_FILE: Final = "file:"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Shorter ones, such as a port, would be found in texts that have nothing to do with them.
_SHORTEST: Final = 4


class Secrets:
    """Puts values in the place of placeholders, and takes them out of texts again.

    Args:
        environment: where `${NAME}` is looked up.
        folder: that the paths in `${file:PATH}` are relative to.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._placeholders: dict[str, str] = {}

    def expand(self, text: str) -> str:
        """A text with values instead of placeholders.

        Raises:
            UsageError: there is no such variable or file, or nothing in it.
        """
        return _PLACEHOLDER.sub(self._value, text)

    def hide(self, text: str) -> str:
        """A text with placeholders instead of the values, and with URLs redacted."""
        for value, placeholder in sorted(self._placeholders.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(value, placeholder)
        return redacted(text)

    def _value(self, match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "${"
        value = self._from_file(name.removeprefix(_FILE)) if name.startswith(_FILE) else self._from_environment(name)
        for written in (value, unquote(value)):
            if len(written) >= _SHORTEST:
                self._placeholders[written] = f"${{{name}}}"
        return value

    def _from_environment(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise UsageError(f"${{{name}}} is no placeholder; expected ${{NAME}} or ${{file:PATH}}")
        if value := self._environment.get(name):
            return value
        what = "empty" if name in self._environment else "not there"
        raise UsageError(f"${{{name}}}: this variable is {what}; set it where the service is started")

    def _from_file(self, place: str) -> str:
        path = self._folder / place
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"${{{_FILE}{place}}} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
        if not value:
            raise UsageError(f"${{{_FILE}{place}}} is empty; expected the secret in it")
        return value
