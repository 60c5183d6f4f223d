"""The user's own model: a function in a Python file, and weights that cannot run code."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autocompress.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Keys under which training scripts commonly keep the weights in a checkpoint.
_NESTED = ("state_dict", "model_state_dict", "model")


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """The module that ``FILE.py:FUNCTION`` returns, with ``weights`` loaded into it.

    Raises:
        RequestError: the file, the function or the weights cannot be used.
    """
    from torch import nn

    name, colon, function = spec.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py" or not function.isidentifier():
        raise RequestError(
            f"--model is {spec!r}; write FILE.py:FUNCTION, where FUNCTION returns the "
            "torch.nn.Module (whole pickled models and TorchScript files are not loaded)"
        )
    module = _import(path)
    build = getattr(module, function, None)
    if not callable(build):
        raise RequestError(f"{path} has no function {function!r}; name one that returns the model")
    try:
        model = build()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise _users_fault(path, f"{function}()", error) from error
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"{function}() in {path} returned a {type(model).__name__}; it must return a "
            "torch.nn.Module"
        )
    if weights is not None:
        _load_weights(model, weights)
    return model


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise RequestError(f"there is no file {path}; --model needs FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise RequestError(f"{path} cannot be imported; it must be a Python file")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as for a script: its neighbours can be imported, now and later
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[spec.name]
        sys.path.remove(folder)
        raise _users_fault(path, "importing it", error) from error
    return module


def _users_fault(path: Path, what: str, error: BaseException) -> RequestError:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    frames = frames or [
        f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.resolve())
    ]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    where = f"{path}, line {line}" if line else str(path)
    return RequestError(f"{where}: {what} raised {type(error).__name__}: {error}")


def _load_weights(model: nn.Module, path: Path) -> None:
    state = _read(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        listed = [line.strip() for line in str(error).splitlines()[1:4]]
        summary = "; ".join(f"{line[:160]}…" if len(line) > 160 else line for line in listed)
        raise RequestError(f"the weights {path} do not fit the model: {summary}") from error


def _read(path: Path) -> Mapping[str, Tensor]:
    import torch

    if not path.is_file():
        raise RequestError(f"there is no file {path}; --weights needs a .safetensors or .pt file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many kinds for a bad file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(
            f"the weights {path} cannot be read: {reason} "
            "(only tensors are loaded; save model.state_dict())"
        ) from error
    for key in _NESTED:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
            break
    if not isinstance(value, Mapping):
        raise RequestError(
            f"the weights {path} hold a {type(value).__name__}; save model.state_dict()"
        )
    return value
