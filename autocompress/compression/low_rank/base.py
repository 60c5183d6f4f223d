"""What a form of factorisation is, and the one step that most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import torch

from autocompress.compression.parts import Part
from autocompress.graph.factors import LayerShape

#: From a layer's weight to those of its parts.
Split: TypeAlias = Callable[[torch.Tensor], list[torch.Tensor]]


class Factorization(ABC):
    """One way to write a layer's weight as a product of smaller ones.

    The shapes of the factors are :mod:`autocompress.graph.factors`' business. One factor carries
    the weight, projected onto what the others span; the others are constants while the shared
    weights are trained, and parameters like any other once the candidate is realised.

    Attributes:
        name: one of :data:`autocompress.core.candidate.FACTORIZATIONS`.
        reference: the paper it comes from.
        iterative: whether fitting takes many sweeps over the weight.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    iterative: ClassVar[bool] = False

    @abstractmethod
    def fit(self, part: Part, shapes: Sequence[LayerShape]) -> Split:
        """How to split weights like the part's into factors of the given shapes.

        Looks at the part's weight, and keeps no copy of it. The returned function is
        differentiable, and linear, in the weight that it is given; for the part's own weight its
        factors are the best ones that the form can find. Same weight, same answer.
        """


def leading_vectors(gram: torch.Tensor, count: int) -> torch.Tensor:
    """Eigenvectors of the largest eigenvalues, shape ``(n, count)``, largest first.

    Args:
        gram: symmetric, positive semi-definite, shape ``(n, n)``; in double precision, since
            squares halve the digits.
        count: how many, at most ``n``.
    """
    vectors: torch.Tensor = torch.linalg.eigh(gram)[1]
    return vectors[:, -count:].flip(1)
