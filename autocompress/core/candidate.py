"""A point of the search: architecture choices, one policy per layer, and a training recipe."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, TypeAlias

from autocompress.errors import RequestError

Scalar: TypeAlias = int | float | str | bool

#: Weight bit-widths a policy may name; which of them pay is the device profile's business.
WEIGHT_BITS = (1, 2, 3, 4, 5, 6, 8, 16, 32)
#: Activation bit-widths a policy may name.
ACTIVATION_BITS = (4, 6, 8, 16, 32)
#: Kinds of distillation a recipe may name, besides those of :data:`DISTILLATION_ENTRY_POINTS`.
DISTILLATIONS = (
    "response", "decoupled", "feature", "attention", "relation", "mutual", "self", "none",
)  # fmt: skip
#: Where other packages register kinds.
DISTILLATION_ENTRY_POINTS = "autocompress.distillations"
#: Ways to write a layer's weight as a product of smaller ones; see docs/techniques.md.
FACTORIZATIONS = ("svd", "whitened", "tucker", "cp", "spatial")
#: Fewest and most values of a codebook.
CODEBOOK = (3, 256)
#: The pattern of zeros that may lie anywhere.
UNSTRUCTURED = "unstructured"
_N_OF_M = re.compile(r"([1-9]\d*):([1-9]\d*)")
_BLOCK = re.compile(r"block:([1-9]\d*)x([1-9]\d*)")


def _plugged_in() -> tuple[str, ...]:
    """Kinds of distillation that other packages bring."""
    return tuple(sorted({entry.name for entry in entry_points(group=DISTILLATION_ENTRY_POINTS)}))


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class LayerPolicy:
    """How one layer is compressed; the defaults leave it exactly as it was.

    Attributes:
        weight_bits: bits per stored weight; 32 keeps floats.
        activation_bits: bits of the layer's input and output activations; 32 keeps floats.
        width: kept output channels, or None for all of them.
        sparsity: share of weights set to zero, in [0, 1).
        pattern: how zeros are laid out: "unstructured"; "N:M" such as "2:4", where N of every M
            input channels stay and ``sparsity`` is ``1 - N / M``; or "block:RxC" such as
            "block:1x4", where blocks of R output by C input channels are zero together.
        rank: rank of the factorised weight, or None for the full weight.
        factorization: how the weight is factorised, of :data:`FACTORIZATIONS`; only with a
            rank.
        input_rank: for "tucker", channels that enter the core; None takes ``rank`` of them, too.
        codebook: number of shared weight values, 3 to 256, or None for no weight sharing. Weights
            then share values whatever ``weight_bits`` is; see docs/techniques.md.
    """

    weight_bits: int = 32
    activation_bits: int = 32
    width: int | None = None
    sparsity: float = 0.0
    pattern: str = "unstructured"
    rank: int | None = None
    codebook: int | None = None
    factorization: str = "svd"
    input_rank: int | None = None

    def __post_init__(self) -> None:
        if not _whole(self.weight_bits) or self.weight_bits not in WEIGHT_BITS:
            raise RequestError(f"weight_bits is {self.weight_bits!r}; use one of {WEIGHT_BITS}")
        if not _whole(self.activation_bits) or self.activation_bits not in ACTIVATION_BITS:
            raise RequestError(
                f"activation_bits is {self.activation_bits!r}; use one of {ACTIVATION_BITS}"
            )
        if not isinstance(self.sparsity, int | float) or not 0.0 <= self.sparsity < 1.0:
            raise RequestError(f"sparsity is {self.sparsity!r}; it must be in [0, 1)")
        self._check_pattern()
        for name in ("width", "rank", "codebook", "input_rank"):
            value = getattr(self, name)
            if value is not None and (not _whole(value) or value < 1):
                raise RequestError(
                    f"{name} is {value!r}; it must be a whole number of at least 1, or None"
                )
        self._check_factorization()
        if self.codebook is not None and not CODEBOOK[0] <= self.codebook <= CODEBOOK[1]:
            raise RequestError(
                f"codebook is {self.codebook!r}; use {CODEBOOK[0]} to {CODEBOOK[1]} values, or None"
            )

    def _check_factorization(self) -> None:
        """One meaning has one policy: what would say nothing is refused."""
        if self.factorization not in FACTORIZATIONS:
            raise RequestError(
                f"factorization is {self.factorization!r}; use one of {', '.join(FACTORIZATIONS)}"
            )
        if self.rank is None and (self.factorization != "svd" or self.input_rank is not None):
            raise RequestError(
                f"factorization {self.factorization!r} with input_rank {self.input_rank!r} needs a "
                "rank; give one, or leave both out to keep the full weight"
            )
        if self.input_rank is not None and self.factorization != "tucker":
            raise RequestError(
                f"input_rank is {self.input_rank!r}, but factorization {self.factorization!r} has "
                "one rank; use factorization='tucker', or leave input_rank out"
            )
        if self.input_rank is not None and self.input_rank == self.rank:
            object.__setattr__(self, "input_rank", None)

    def _check_pattern(self) -> None:
        name = self.pattern if isinstance(self.pattern, str) else ""
        found = _N_OF_M.fullmatch(name)
        if found is not None and int(found[1]) < int(found[2]):
            share = 1.0 - int(found[1]) / int(found[2])
            if not math.isclose(self.sparsity, share, abs_tol=1e-9):
                raise RequestError(
                    f"sparsity is {self.sparsity!r} with pattern {name!r}, which makes a share of "
                    f"{share:g} zero; give that"
                )
        elif name == "block:1x1" or not (name == UNSTRUCTURED or _BLOCK.fullmatch(name)):
            raise RequestError(
                f"pattern is {self.pattern!r}; use 'unstructured', 'N:M' with N below M such as "
                "'2:4', or 'block:RxC' with more than one weight such as 'block:1x4'"
            )

    def sparsity_of(self, weight: Sequence[int]) -> float:
        """The share of zeros in a weight, which has none where the pattern does not fit.

        Args:
            weight: shape ``(out, in / groups, ...)``; of the layer, or of a part of it.
        """
        if found := _BLOCK.fullmatch(self.pattern):
            fits = weight[0] >= int(found[1]) and weight[1] >= int(found[2])
        else:
            found = _N_OF_M.fullmatch(self.pattern)
            fits = found is None or weight[1] >= int(found[2])
        return self.sparsity if fits else 0.0

    @property
    def is_quantized(self) -> bool:
        """Whether the layer computes in integers: quantised weights and activations."""
        return self.weight_bits <= 8 and self.activation_bits <= 8

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from the defaults, as plain JSON values."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a candidate is trained back.

    Attributes:
        distillation: one of :data:`DISTILLATIONS`, or a plug-in's (see docs/techniques.md).
        distillation_weight: share of what is learnt from answers in the total, in [0, 1]; the
            labels have the rest.
        temperature: softening of teacher and student logits, > 0.
        learning_rate: peak learning rate, > 0.
        steps: optimiser steps, or None to let the fidelity decide.
        feature_weight: factor of what is learnt from features, added to the total, >= 0; 1 is the
            weight that the kind's paper gives. Kinds that read no features ignore it.
    """

    distillation: str = "response"
    distillation_weight: float = 0.7
    temperature: float = 3.0
    learning_rate: float = 1e-3
    steps: int | None = None
    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.distillation not in DISTILLATIONS and self.distillation not in _plugged_in():
            known = ", ".join((*DISTILLATIONS, *_plugged_in()))
            raise RequestError(f"distillation is {self.distillation!r}; use one of {known}")
        if not 0.0 <= self.distillation_weight <= 1.0:
            raise RequestError(
                f"distillation_weight is {self.distillation_weight!r}; it must be in [0, 1]"
            )
        if not 0 < self.temperature < math.inf or not 0 < self.learning_rate < math.inf:
            raise RequestError(
                f"temperature ({self.temperature!r}) and learning_rate "
                f"({self.learning_rate!r}) must be positive"
            )
        if self.steps is not None and (not _whole(self.steps) or self.steps < 0):
            raise RequestError(f"steps is {self.steps!r}; it must be a whole number, or None")
        if not 0 <= self.feature_weight < math.inf:
            raise RequestError(
                f"feature_weight is {self.feature_weight!r}; it must be at least 0 and finite"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what came after the first version is left out while at its default.

        Candidates are named by the hash of their JSON: those of older runs keep their names.
        """
        value = asdict(self)
        if self.feature_weight == 1.0:
            del value["feature_weight"]
        return value


def _frozen(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType({key: mapping[key] for key in sorted(mapping)})


@dataclass(frozen=True, eq=False)
class Candidate:
    """One immutable point of the search space; equal content means equal hash.

    Attributes:
        architecture: architecture choices by name, such as ``{"depth:layer1": 2}``.
        layers: one :class:`LayerPolicy` per layer, by the layer's qualified name.
        recipe: how it is trained back.
    """

    architecture: Mapping[str, Scalar] = field(default_factory=dict)
    layers: Mapping[str, LayerPolicy] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", _frozen(self.architecture))
        object.__setattr__(self, "layers", _frozen(self.layers))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def id(self) -> str:
        """The first 12 hexadecimal digits of :attr:`hash`: names folders and rows."""
        return self.hash[:12]

    def policy(self, layer: str) -> LayerPolicy:
        """The policy of ``layer``; the default policy when none is set."""
        return self.layers.get(layer, _DEFAULT_POLICY)

    def with_layers(self, layers: Mapping[str, LayerPolicy]) -> Candidate:
        """A copy with other layer policies."""
        return replace(self, layers=layers)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` is its inverse."""
        return {
            "architecture": dict(self.architecture),
            "layers": {name: policy.to_json() for name, policy in self.layers.items()},
            "recipe": self.recipe.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """Rebuild a candidate from :meth:`to_json`'s value.

        Raises:
            RequestError: a key is missing or unknown, or a value is out of range.
        """
        try:
            return cls(
                architecture=dict(value["architecture"]),
                layers={name: LayerPolicy(**policy) for name, policy in value["layers"].items()},
                recipe=Recipe(**value["recipe"]),
            )
        except RequestError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RequestError(f"this is not a candidate's JSON: {error}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Candidate, (dict(self.architecture), dict(self.layers), self.recipe))


_DEFAULT_POLICY = LayerPolicy()
