"""The run folder: created, locked, and written so that every file is complete or absent."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tomli_w

from autocompress.errors import RequestError, StorageError

try:
    import tomllib
except ModuleNotFoundError as error:  # pragma: no cover - Python 3.11 has it
    raise ImportError("autocompress needs Python 3.11 or newer") from error

_PACKAGES = ("autocompress", "torch", "torchvision", "onnxruntime", "onnx", "optuna", "numpy")


def now() -> str:
    """The time, in ISO 8601 with UTC offset."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into a :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; "
            f"make room or set its permissions, then resume the run"
        ) from error


class RunFolder:
    """Reads and writes the files of one run.

    Args:
        path: the folder; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the run folder {path} cannot be made ({error}); give another run_dir"
            ) from error

    @property
    def checkpoints(self) -> Path:
        """Folder of ``*.safetensors``."""
        return self.path / "checkpoints"

    @property
    def models(self) -> Path:
        """Folder of verified models."""
        return self.path / "models"

    @property
    def rejected(self) -> Path:
        """Folder of models that failed verification."""
        return self.path / "rejected"

    @property
    def staging(self) -> Path:
        """Folder of models that are not verified yet."""
        return self.path / "staging"

    @property
    def device(self) -> Path:
        """Folder with the profile this run was priced by."""
        return self.path / "device"

    @property
    def has_device(self) -> bool:
        """Whether the profile was written; its ``profile.toml`` is the last of its files."""
        return (self.device / "profile.toml").is_file()

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.toml").is_file()

    # -- run.toml -------------------------------------------------------------------------------

    def begin(self, request: Mapping[str, Any], command: str) -> None:
        """Write ``run.toml`` for a new run."""
        self.write_toml(
            "run.toml",
            {
                "run": {
                    "id": self.path.name,
                    "created": now(),
                    "version": _version("autocompress"),
                    "seed": request["seed"],
                    "status": "running",
                    "command": command,
                    "elapsed_seconds": 0.0,
                },
                "request": dict(request),
                "versions": {"python": platform.python_version()}
                | {name: _version(name) for name in _PACKAGES},
                "machine": machine(),
            },
        )

    def settings(self) -> dict[str, Any]:
        """What ``run.toml`` holds.

        Raises:
            StorageError: it is missing or damaged.
        """
        path = self.path / "run.toml"
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StorageError(
                f"{self.path} is no run folder: it has no run.toml; check the path"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise StorageError(
                f"{path} cannot be read: {error}; restore it from a copy, or start a new run"
            ) from error
        if not {"run", "request"} <= set(found):
            raise StorageError(f"{path} is cut short; restore it from a copy, or start a new run")
        return found

    @property
    def status(self) -> str:
        """How the run ended, or that it has not: running, complete, interrupted or failed."""
        return str(self.settings()["run"].get("status", "running"))

    def update(self, **values: Any) -> None:
        """Set values of the ``[run]`` table."""
        settings = self.settings()
        settings["run"].update(values)
        self.write_toml("run.toml", settings)

    def check_same(self, request: Mapping[str, Any]) -> None:
        """Make sure that a run to be resumed was asked for the same.

        Raises:
            RequestError: something that decides the outcome differs.
        """
        stored = self.settings()["request"]
        free = {"workers", "executor", "options", "device"}
        for key in sorted((set(stored) | set(request)) - free):
            if stored.get(key) != request.get(key):
                if key == "fingerprint":
                    raise RequestError(
                        f"{self.path} holds a run of other weights or other data; "
                        f"use another run_dir"
                    )
                raise RequestError(
                    f"{self.path} holds a run with {key} = {stored.get(key)!r}, now asked with "
                    f"{request.get(key)!r}; use another run_dir, or ask for the same"
                )

    # -- plain files ----------------------------------------------------------------------------

    def write_text(self, name: str, text: str) -> Path:
        """Write a file so that it is complete or absent."""
        path = self.path / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        return path

    def write_toml(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a TOML file."""
        return self.write_text(name, tomli_w.dumps(value))

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file; values that are not finite become null."""
        return self.write_text(name, json.dumps(finite(value), indent=1, allow_nan=False))

    def read_json(self, name: str) -> Any | None:
        """A JSON file's value; None when there is no such file.

        Raises:
            StorageError: it is damaged.
        """
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error}); delete it and resume") from error


class DecisionLog:
    """``decisions.jsonl``: what was decided, on what evidence, in a sentence.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path / "decisions.jsonl"
        _drop_torn_line(self.path)

    def add(
        self, stage: str, decision: str, sentence: str, evidence: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Append one decision; returns it."""
        entry = {
            "time": now(), "stage": stage, "decision": decision, "sentence": sentence,
            "evidence": finite(dict(evidence)),
        }  # fmt: skip
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return entry


def _drop_torn_line(path: Path) -> None:
    """A line that a crash cut short would make the next one unreadable."""
    if not path.is_file():
        return
    with writing(path):
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)


def finite(value: Any) -> Any:
    """``value`` as plain JSON values, with null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def machine() -> dict[str, Any]:
    """CPU, cores and operating system of this machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "os": f"{platform.system()} {platform.release()}",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def command_line() -> str:
    """The command this process was started with."""
    return " ".join(Path(a).name if i == 0 else a for i, a in enumerate(sys.argv))
