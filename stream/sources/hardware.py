"""Decoding in a graphics card, for who asks for it.

Such decoders conceal damage without a word (`stream.sources.decoder`), so nobody gets one who did not give up strict
decoding as well. Pictures come back to the host, where regions are copied into them: one copy each, as decoded.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import av
import av.error
from av.codec.hwaccel import HWAccel

from engines.errors import RuntimeUnavailableError
from stream.config import DecoderDevice

#: Every card that decodes takes it, so that whether there is one can be tried with it.
_COMMON: Final = "h264"
#: What an error that may be the card's is followed by.
HINT: Final = "the GPU may not decode such pictures; try --decoder cpu"


def accelerated(device: DecoderDevice) -> HWAccel | None:
    """What a container is opened with; each needs its own."""
    return None if device == "cpu" else HWAccel(device, allow_software_fallback=False)


@cache
def check_decoder(device: DecoderDevice) -> None:
    """See that pictures can be decoded there at all; asked once per process, as a context takes a while.

    Raises:
        RuntimeUnavailableError: they cannot.
    """
    acceleration = accelerated(device)
    if acceleration is None:
        return
    try:
        acceleration.create(av.Codec(_COMMON, "r"))
    except (av.error.FFmpegError, RuntimeError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RuntimeUnavailableError(
            f"no GPU decodes video here ({reason}): CUDA's driver, with its video part, is needed; use --decoder cpu"
        ) from error


def hint(device: DecoderDevice) -> str:
    """What is to be added where something cannot be decoded, or nothing."""
    return "" if device == "cpu" else f"; {HINT}"
