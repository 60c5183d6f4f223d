"""The run folder: where its files lie, and how they are read and written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from autocompress.agent.provenance import machine, now, versions
from autocompress.agent.request import MODELS, ORIGIN, TRAINING
from autocompress.core.files import write_atomically
from autocompress.core.json_values import finite
from autocompress.errors import RequestError, StorageError

T = TypeVar("T")
#: Options that decide the outcome.
_DECIDING = (ORIGIN, MODELS, TRAINING)
#: What decides how a run goes on.
_PARTS = (
    "plan.json", "capabilities.json", "channels.json", "baseline.json", "study.db",
    "checkpoints", "models", "sensitivity.json", "trust.json",
)  # fmt: skip


def _flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with those of its options that decide the outcome beside its other values."""
    options = request.get("options", {})
    return {**request, **{name: options[name] for name in _DECIDING if name in options}}


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

    @property
    def leftovers(self) -> list[str]:
        """What a run has left here, apart from ``run.toml``."""
        return [name for name in _PARTS if (self.path / name).exists()]

    # -- run.toml -------------------------------------------------------------------------------

    def begin(self, request: Mapping[str, Any], command: str) -> None:
        """Write ``run.toml`` for a new run."""
        self.write_toml(
            "run.toml",
            {
                "run": {
                    "id": self.path.name,
                    "created": now(),
                    "version": versions()["autocompress"],
                    "seed": request["seed"],
                    "status": "running",
                    "command": command,
                    "elapsed_seconds": 0.0,
                },
                "request": dict(request),
                "versions": versions(),
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
        stored, request = _flat(self.settings()["request"]), _flat(request)
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
        write_atomically(path, text)
        return path

    def write_toml(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a TOML file."""
        return self.write_text(name, tomli_w.dumps(value))

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file; values that are not finite become null."""
        return self.write_text(name, json.dumps(finite(value), indent=1, allow_nan=False))

    def read_json(self, name: str, parse: Callable[[Any], T]) -> T | None:
        """What a JSON file holds; None when there is no such file.

        Args:
            name: of the file.
            parse: makes of its value what is wanted; complains as Python does when it cannot.

        Raises:
            StorageError: it is damaged, or holds something else.
        """
        path = self.path / name
        if not path.is_file():
            return None
        try:
            return parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else error
            raise StorageError(f"{path} is damaged ({why}); delete it and resume") from error
