"""How a stream that is added from outside may differ from the settings in force: towards more covering alone.

Whoever may add a stream may not own the machine, so what finds less, or covers less, is for the config file. Where
nobody can tell which of two values covers more, the one in force stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from engines.errors import UsageError
from stream.config import RunSettings, Treatment
from stream.regions import Kind

#: Settings that change neither what is found nor what is covered: pace, looks of what covers, input and output.
FREE: Final = frozenset({
    "backend", "certificate", "codec", "connect_timeout", "contact_sheet", "crf", "deadline", "device", "end",
    "insecure", "latency_budget", "mask_colour", "on_failure", "overwrite", "precision", "private_key", "raw",
    "read_timeout", "reconnect_attempts", "remember", "report", "report_rotate", "retain", "rtsp_transport", "seed",
    "segment", "show_regions", "sink_timeout", "speed", "spool", "start", "threads", "truncation", "video_stream",
    "when_lost",
})  # fmt: skip
#: The more, the stricter; and the less.
NOT_BELOW: Final = frozenset({
    "blur_radius", "detect_size", "hold", "lookahead", "margin", "mask_frames", "mask_margin", "tiles",
})  # fmt: skip
NOT_ABOVE: Final = frozenset({"cells", "threshold"})
#: Of which one value is the strictest, and no two others can be compared.
STRICTEST: Final[Mapping[str, object]] = {"fallback": "mask", "shape": "box", "when_slow": "drop"}
#: What may come in the place of a treatment. A stand-in follows a person's outline, and others a box or an ellipse.
STRICTER: Final[Mapping[Treatment, frozenset[Treatment]]] = {
    "keep": frozenset({"blur", "pixelate", "mask"}),
    "blur": frozenset({"mask"}),
    "pixelate": frozenset({"mask"}),
    "mask": frozenset(),
    "realistic": frozenset(),
}
#: Compared by kind, since one stands for others that are not given.
TREATMENTS: Final[Mapping[str, Kind]] = {"face": Kind.FACE, "person": Kind.PERSON, "plate": Kind.PLATE}
#: Files with more to cover: where there is none, there may be one.
ADDING: Final = frozenset({"regions"})
#: Everything else, named so that nobody forgets to decide: they stay as they are.
SAME: Final = frozenset({
    "audio", "context", "decoder", "decoding", "detections", "detector", "detector_precision", "engine",
    "engine_server", "ignore_zones", "join_faces", "metadata", "only_zones", "preset",
})  # fmt: skip


def check_strictness(settings: RunSettings, in_force: RunSettings) -> None:
    """Whether a stream finds and covers at least what one of the settings in force would.

    Args:
        settings: of the stream.
        in_force: those of `[defaults]`, or the product's; paths in both are absolute.

    Raises:
        UsageError: it could find or cover less; the message names the setting.
    """
    for name in RunSettings.model_fields:
        if name in FREE:
            continue
        if name in TREATMENTS:
            given, least = (each.treatment(TREATMENTS[name]) for each in (settings, in_force))
            fine = given == least or given in STRICTER[least]
        else:
            given, least = getattr(settings, name), getattr(in_force, name)
            fine = given == least or _stricter(name)(given, least)
        if not fine:
            raise UsageError(_refusal(name, given, least))


def _stricter(name: str) -> Callable[[Any, Any], bool]:
    """Whether a value of a setting covers more than another; nobody knows where it is not written here."""
    if name in NOT_BELOW:
        return lambda given, least: bool(given > least)
    if name in NOT_ABOVE:
        return lambda given, least: bool(given < least)
    if name in STRICTEST:
        return lambda given, _: bool(given == STRICTEST[name])
    if name in ADDING:
        return lambda _, least: least is None
    return lambda _given, _least: False


def _refusal(name: str, given: object, least: object) -> str:
    if name in NOT_BELOW | NOT_ABOVE:
        bound = "at least" if name in NOT_BELOW else "at most"
        return f"{name}: {given} is less strict than what is in force; over the API it must be {bound} {least}"
    if name in STRICTEST or name in TREATMENTS:
        return f"{name}: {given} may cover less than {least}, which is in force; that is for the config file"
    # Values of these may be paths, which are nobody's business.
    return f"{name}: over the API it stays as it is in force ([defaults]); put the stream into the config file"
