"""Search spaces: typed choices over a fixed genome, and what every space can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.core.candidate import Candidate, Scalar
from autocompress.errors import RequestError

#: One gene per choice: the index of the chosen option. Shape ``(len(space.choices),)``.
Genome: TypeAlias = npt.NDArray[np.int64]

ChoiceKind = Literal["architecture", "compression", "recipe"]

#: Names of genes of kind "recipe" start with this, followed by the recipe's field.
RECIPE = "recipe:"


@dataclass(frozen=True, slots=True)
class Condition:
    """Makes a gene active only while gene ``name`` holds one of ``values``."""

    name: str
    values: tuple[Scalar | None, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One gene: a named decision among ``options``.

    Attributes:
        name: unique within the space, ``"<what>:<target>"``, such as ``"rank:layer1.conv1"``.
        options: allowed values. Option 0 is the canonical value of an inactive gene; by
            convention it is the least compressed setting.
        kind: whether it decides the architecture, the compression or the recipe.
        ordered: whether the options form a scale (widths, bits) rather than a set.
        condition: when set, the gene is active only while the condition holds.
    """

    name: str
    options: tuple[Scalar | None, ...]
    kind: ChoiceKind = "compression"
    ordered: bool = True
    condition: Condition | None = None

    def __post_init__(self) -> None:
        if not self.options:
            raise RequestError(f"choice {self.name!r} has no options; give at least one")
        if len(set(self.options)) != len(self.options):
            raise RequestError(f"choice {self.name!r} repeats an option: {self.options!r}")


class SearchSpace(ABC):
    """The allowed choices, as a genome of fixed length.

    Subclasses provide :attr:`name`, :attr:`choices`, :meth:`decode`, :meth:`encode` and
    :meth:`build`; sampling and canonical genomes follow from them. Inactive genes are
    allowed: :meth:`canonical` sets them to option 0, so that equal candidates have equal genomes.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name it is looked up by and reported as."""

    @property
    @abstractmethod
    def choices(self) -> Sequence[Choice]:
        """The genes, in a fixed order; the same object's answer never changes."""

    @abstractmethod
    def decode(self, genome: Genome) -> Candidate:
        """The candidate of a genome; inactive genes have no influence."""

    @abstractmethod
    def encode(self, candidate: Candidate) -> Genome:
        """The canonical genome of a candidate of this space.

        Raises:
            RequestError: the candidate does not belong to this space.
        """

    @abstractmethod
    def build(self, candidate: Candidate) -> Any:
        """A stand-alone, physically small ``torch.nn.Module`` for the candidate."""

    @cached_property
    def _index(self) -> dict[str, int]:
        return {choice.name: i for i, choice in enumerate(self.choices)}

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of options per gene, shape ``(genes,)``."""
        return np.array([len(c.options) for c in self.choices], dtype=np.int64)

    @property
    def log10_size(self) -> float:
        """Base-10 logarithm of the number of genomes."""
        return float(np.log10(self.sizes.astype(float)).sum()) if len(self.choices) else 0.0

    def count(self, wanted: Callable[[Choice], bool] = lambda choice: True) -> int:
        """The exact number of different candidates that the wanted choices give.

        The other choices stay at option 0. A choice that is not active is no choice, which
        :attr:`log10_size` leaves out of account.
        """
        below: dict[str, list[Choice]] = {}
        for choice in self.choices:
            if choice.condition is not None:
                below.setdefault(choice.condition.name, []).append(choice)

        def under(choice: Choice, option: Scalar | None) -> int:
            return prod(
                number(child)
                for child in below.get(choice.name, ())
                if child.condition is not None and option in child.condition.values
            )

        def number(choice: Choice) -> int:
            options = choice.options if wanted(choice) else choice.options[:1]
            return sum(under(choice, option) for option in options)

        return prod(number(choice) for choice in self.choices if choice.condition is None)

    def value(self, genome: Genome, name: str) -> Scalar | None:
        """The option that gene ``name`` holds in ``genome``."""
        i = self._index[name]
        return self.choices[i].options[int(genome[i])]

    def active(self, genome: Genome) -> npt.NDArray[np.bool_]:
        """Which genes matter, shape ``(genes,)``.

        A gene is inactive when its condition's gene is inactive or holds another value; the
        conditions' genes must come earlier in :attr:`choices`.
        """
        mask = np.ones(len(self.choices), dtype=bool)
        for i, choice in enumerate(self.choices):
            if choice.condition is not None:
                parent = self._index[choice.condition.name]
                value = self.choices[parent].options[int(genome[parent])]
                mask[i] = bool(mask[parent]) and value in choice.condition.values
        return mask

    def check(self, genome: Genome) -> Genome:
        """``genome`` as int64, validated.

        Raises:
            RequestError: wrong length, or a gene out of range.
        """
        array = np.asarray(genome, dtype=np.int64)
        if array.shape != (len(self.choices),):
            raise RequestError(
                f"genome has shape {array.shape}; space {self.name!r} needs ({len(self.choices)},)"
            )
        bad = np.flatnonzero((array < 0) | (array >= self.sizes))
        if bad.size:
            choice = self.choices[int(bad[0])]
            raise RequestError(
                f"gene {choice.name!r} is {int(array[bad[0]])}; "
                f"it must be in 0..{len(choice.options) - 1}"
            )
        return array

    def canonical(self, genome: Genome) -> Genome:
        """The same candidate's genome with every inactive gene at option 0."""
        array = self.check(genome).copy()
        array[~self.active(array)] = 0
        return array

    def sample(self, rng: np.random.Generator) -> Genome:
        """A canonical genome, uniform over the options of each gene."""
        return self.canonical(rng.integers(0, self.sizes))

    @property
    def original(self) -> Genome:
        """Option 0 everywhere: the least compressed candidate."""
        return np.zeros(len(self.choices), dtype=np.int64)
