"""Every error autocompress raises on purpose.

Each message says what was wrong, with which value, and what to do. ``exit_code`` is what the
command line returns when the error reaches it (0 ok, 1 a bug of ours, 2 the request is wrong,
3 a constraint cannot be met, 4 the device, 5 storage, 130 interrupted but saved).
"""

from __future__ import annotations


class AutocompressError(Exception):
    """Base of all errors raised on purpose by autocompress."""

    exit_code: int = 1


class RequestError(AutocompressError, ValueError):
    """The request itself is wrong: an unknown name, a bad option, unusable data."""

    exit_code = 2


class DataError(RequestError):
    """The data cannot be used, or does not match the model."""


class CaptureError(RequestError):
    """The model cannot be captured as a graph; the message names the offending line."""


class MissingExtraError(RequestError):
    """An optional package is needed; the message holds the exact ``pip install`` command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed; "
            f'run: pip install "autocompress[{extra}]"'
        )
        self.package = package
        self.extra = extra


class InfeasibleError(AutocompressError):
    """No candidate meets the constraints; the message shows the nearest and what to relax."""

    exit_code = 3


class DeviceError(AutocompressError):
    """The target device, its profile or its runtime is unusable."""

    exit_code = 4


class ProfileError(DeviceError):
    """A hardware profile on disk is corrupt, truncated or inconsistent."""


class StorageError(AutocompressError):
    """A run folder or a file in it cannot be used."""

    exit_code = 5


class RunInUseError(StorageError):
    """Another live process is writing to this run folder."""


class DivergedError(AutocompressError):
    """A training's loss is no longer finite: the data, the loss function or the rate are wrong."""

    exit_code = 2


class VerificationError(AutocompressError):
    """An exported model is not what it claims to be."""


class InterruptedRun(AutocompressError):  # noqa: N818 - an event, not a fault
    """The user interrupted the run; everything finished was saved and can be resumed."""

    exit_code = 130
