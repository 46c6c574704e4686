"""Every error class of the project.

Each is also a subclass of the built-in that callers would expect, so that a library user can catch
`ValueError` or `OSError` without knowing this module. The message says what was given, what was expected
and what to do; the command line prints it as one line and exits with `exit_code`.
"""

from __future__ import annotations


class StandinError(Exception):
    """Base of all errors that Standin raises on purpose."""

    #: 1 failed, 2 wrong usage (see `stream.cli`).
    exit_code = 1


class UsageError(StandinError, ValueError):
    """The call was wrong: an unknown option, a path that cannot be meant, settings that exclude another."""

    exit_code = 2


class SourceError(StandinError, OSError):
    """An input cannot be opened or read as what it claims to be."""


class SinkError(StandinError, OSError):
    """An output cannot be opened, written or put in its place."""


class BundleError(StandinError, ValueError):
    """A bundle's manifest or files are not what they should be."""


class BundleMissingError(BundleError, FileNotFoundError):
    """A bundle is not where it was looked for."""


class BundleTamperedError(BundleError):
    """A bundle's file is missing or its content is not what the manifest says."""


class BundleSchemaError(BundleError):
    """A bundle was written for another schema version than this release reads."""


class CheckpointError(StandinError, ValueError):
    """A published checkpoint cannot be read, or does not hold the network that it should."""


class DownloadError(StandinError, ConnectionError):
    """A download did not complete, or what arrived is not what was asked for."""


class HashMismatchError(DownloadError):
    """A file arrived whole, but its sha256 is another one."""


class RuntimeUnavailableError(StandinError, RuntimeError):
    """The runtime or execution provider that was asked for is not usable here."""


class DeviceMissingError(RuntimeUnavailableError):
    """A library, a provider or a driver is not there: nothing at all runs on that device here."""


class RuntimeFailedError(StandinError, RuntimeError):
    """A runtime raised while it executed a graph, or was used after it was closed."""


class OutOfMemoryError(RuntimeFailedError):
    """A runtime found no memory, not even for the smallest batch."""


class TensorError(StandinError, ValueError):
    """Arrays fed to a runtime do not match what the manifest declares."""


class DetectionError(StandinError, RuntimeError):
    """A detector's answer cannot be trusted, so the frame counts as not looked at."""


class GenerationError(StandinError, RuntimeError):
    """A generator's answer cannot be trusted, or it cannot be asked so, so the frame is withheld."""


class DeadlineError(StandinError, TimeoutError):
    """A stage did not answer in time."""


class StreamStoppedError(StandinError, RuntimeError):
    """A run was ended on purpose after a failure; the output is valid up to there."""


class ExportError(StandinError, RuntimeError):
    """A network could not be exported, or what was exported does not compute the same."""
