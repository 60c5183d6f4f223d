"""Named search spaces: built in, or from the entry points ``autocompress.search_spaces``.

A space is a module with a docstring, ``largest(*, input_shape, num_classes) -> nn.Module`` and,
optionally, ``architecture(model) -> list[Choice]``. Where ``largest`` has a parameter
``vocabulary``, it is told how many token ids there are, or None when the inputs are floats.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from importlib.metadata import entry_points
from math import prod
from types import ModuleType

import torch

from autocompress.compression.base import Technique
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError

ENTRY_POINTS = "autocompress.search_spaces"
_PACKAGE = "autocompress.search_spaces"


def list_spaces() -> dict[str, str]:
    """Every named space and its one-line description."""
    names = {*_built_in(), *(entry.name for entry in entry_points(group=ENTRY_POINTS))}
    return {name: _summary(_module(name)) for name in sorted(names)}


def load_space(
    name: str,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    vocabulary: int | None = None,
    techniques: Sequence[Technique] | None = None,
    capabilities: Capabilities | None = None,
    seed: int = 0,
    held: Sequence[str] = (),
) -> ElasticSpace:
    """A named space for data of this shape, its largest network freshly initialised.

    Args:
        name: as listed by :func:`list_spaces`.
        input_shape: shape of one input, without the batch dimension.
        num_classes: outputs of the network.
        vocabulary: where the inputs are token ids, how many there are.
        techniques: the techniques that add genes; None takes all.
        capabilities: what the target device exploits.
        seed: of the initial weights.
        held: choices that stay as the largest network has them, as in :func:`autocompress.search`.

    Raises:
        RequestError: no such space, it does not fit the data, or there is no choice of a name in
            ``held``.
    """
    module = _module(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = module.largest(
            input_shape=tuple(input_shape), num_classes=num_classes,
            **_about_tokens(module, vocabulary),
        )  # fmt: skip
    describe = getattr(module, "architecture", None)
    return ElasticSpace.from_model(
        model,
        (example_input(input_shape, vocabulary),),
        name=name,
        techniques=techniques,
        capabilities=capabilities,
        architecture=describe(model) if describe is not None else (),
        trained=False,
        held=held,
    )


def _about_tokens(module: ModuleType, vocabulary: int | None) -> dict[str, int | None]:
    """What a space is told of token ids: those that are not for them know no such parameter."""
    takes = "vocabulary" in inspect.signature(module.largest).parameters
    if vocabulary is not None and not takes:
        raise RequestError(
            f"space {module.__name__.rpartition('.')[2]} is not for token ids; use one that is, "
            "such as text_encoder"
        )
    return {"vocabulary": vocabulary} if takes else {}


def example_input(input_shape: Sequence[int], vocabulary: int | None = None) -> torch.Tensor:
    """An input to capture with: zeros, or for token ids many different ones and some padding.

    Args:
        input_shape: shape of one input, without the batch dimension.
        vocabulary: how many token ids there are; None for floats.
    """
    if vocabulary is None:
        return torch.zeros(1, *input_shape)
    ids = 1 + torch.arange(prod(input_shape)) % max(1, vocabulary - 1)
    ids[len(ids) - len(ids) // 4 :] = 0
    return ids.reshape(1, *input_shape)


def _built_in() -> set[str]:
    package = importlib.import_module(_PACKAGE)
    return {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}


def _module(name: str) -> ModuleType:
    if name in _built_in():
        return importlib.import_module(f"{_PACKAGE}.{name}")
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            module: ModuleType = entry.load()
            return module
    known = {*_built_in(), *(entry.name for entry in entry_points(group=ENTRY_POINTS))}
    raise RequestError(f"unknown search space {name!r}; use one of {', '.join(sorted(known))}")


def _summary(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]
