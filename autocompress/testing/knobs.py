"""Turning every choice of a space, one at a time, and looking at what the network then says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from autocompress.core.candidate import Scalar
from autocompress.core.space import Genome
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.space import ElasticSpace

#: Changes up to this share of the largest output may be rounding: another order of the same sums.
ROUNDING = 1e-6
#: Genes that write a weight anew, as factors or as scaled values: one that stays what it is shows
#: rounding. A network that any other gene leaves alone computes the same to the last bit.
_WRITTEN_ANEW = ("rank:", "codebook:")


@dataclass(frozen=True, slots=True)
class Turned:
    """One option of one choice, against option 0 of it.

    Attributes:
        choice: the choice's name.
        option: what it was turned to.
        change: largest difference of the outputs, as a share of the largest output.
    """

    choice: str
    option: Scalar | None
    change: float

    @property
    def has_effect(self) -> bool:
        """Whether the outputs differ, by more than rounding where that can be."""
        return self.change > (ROUNDING if self.choice.startswith(_WRITTEN_ANEW) else 0.0)


def turn_knobs(
    space: ElasticSpace,
    elastic: ElasticModel,
    inputs: Sequence[torch.Tensor],
    places: Iterable[int] | None = None,
) -> Iterator[Turned]:
    """Every option but the first of every choice, run on the shared weights.

    Everything else stays as in the original, but for what makes the choice count: a layer of the
    second branch needs that branch. Recipes say how a candidate is trained, and are left out. The
    bits of activations are quantised on realised networks alone (see
    :func:`autocompress.compression.simulation.simulate_quantization`), so that of a precision it is
    the bits of the weights that show here.

    Args:
        space: whose choices are turned.
        elastic: its shared weights, in evaluation mode.
        inputs: a batch for each input of the network.
        places: of the choices to turn; None turns all.
    """
    before: dict[bytes, torch.Tensor] = {}
    for place in range(len(space.choices)) if places is None else places:
        choice = space.choices[place]
        if choice.kind == "recipe":
            continue
        base = with_active(space, place)
        if base.tobytes() not in before:
            before[base.tobytes()] = _run(space, elastic, base, inputs)
        expected = before[base.tobytes()]
        for option in range(len(choice.options)):
            if option == base[place]:
                continue
            genome = base.copy()
            genome[place] = option
            found = _run(space, elastic, genome, inputs)
            largest = max(float(expected.abs().max()), torch.finfo(expected.dtype).tiny)
            change = float((found - expected).abs().max()) / largest
            yield Turned(choice.name, choice.options[option], change)


def with_active(space: ElasticSpace, place: int) -> Genome:
    """The original, changed as little as makes the choice at ``place`` active."""
    genome = space.original
    names = [choice.name for choice in space.choices]
    condition = space.choices[place].condition
    while condition is not None:
        parent = names.index(condition.name)
        genome[parent] = min(space.choices[parent].options.index(v) for v in condition.values)
        condition = space.choices[parent].condition
    return genome


def _run(
    space: ElasticSpace, elastic: ElasticModel, genome: Genome, inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = elastic.configure(space.decode(genome))(*inputs)
    return output
