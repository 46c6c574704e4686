"""Whether scenes can be drawn on this machine."""

from __future__ import annotations

import pytest

from engines.errors import ExportError


def skip_without_drawing() -> None:
    """Skips the test where moderngl or EGL is missing."""
    pytest.importorskip("moderngl")
    from export.starter.render import open_context

    try:
        open_context().release()
    except ExportError as error:
        pytest.skip(str(error))
