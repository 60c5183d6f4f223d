"""How this machine is named as a device: ``local``, with a runtime or threads behind it."""

from __future__ import annotations

from dataclasses import dataclass

from autocompress.errors import RequestError

LOCAL = "local"
DEFAULT_RUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """This machine with a runtime and a number of threads.

    Attributes:
        runtime: the runtime's name.
        threads: intra-op threads.
    """

    runtime: str = DEFAULT_RUNTIME
    threads: int = 1

    @classmethod
    def parse(cls, name: str) -> LocalDevice | None:
        """From ``local``, ``local:RUNTIME``, ``local:THREADS`` or ``local:RUNTIME:THREADS``.

        Returns:
            None for what names another device.

        Raises:
            RequestError: it begins with ``local:`` and goes on in another way.
        """
        head, *rest = name.split(":")
        if head != LOCAL:
            return None
        runtime, threads = DEFAULT_RUNTIME, 1
        if rest and rest[0].isidentifier():
            runtime = rest.pop(0)
        if rest and rest[0].isdecimal() and int(rest[0]) > 0:
            threads = int(rest.pop(0))
        if rest:
            raise RequestError(
                f"device is {name!r}; this machine is local, local:RUNTIME, local:THREADS or "
                "local:RUNTIME:THREADS, such as local:openvino:2"
            )
        return cls(runtime, threads)

    @property
    def name(self) -> str:
        """The shortest name that means the same."""
        runtime = "" if self.runtime == DEFAULT_RUNTIME else f":{self.runtime}"
        threads = "" if self.threads == 1 else f":{self.threads}"
        return f"{LOCAL}{runtime}{threads}"

    @property
    def words(self) -> str:
        """What is unusual about it, for a person; empty for plain ``local``."""
        runtime = [] if self.runtime == DEFAULT_RUNTIME else [self.runtime]
        threads = [] if self.threads == 1 else [f"{self.threads} threads"]
        return ", ".join([*runtime, *threads])
