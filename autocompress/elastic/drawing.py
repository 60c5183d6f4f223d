"""Which candidates the shared weights are trained as: from the whole to the smallest alike.

Genomes drawn uniformly are all alike: with tens of genes nearly all of them have about the same,
small cost (a tenth of the largest network's, in the spaces here), and what a search looks at,
between them and the largest, is hardly ever trained. Nor does the sandwich rule's fixed smallest
candidate help (Yu & Huang 2019, arXiv:1903.05134): trained at every step, it gets better than its
neighbours, which distorts the ranking. So each family of genes (depths, widths, precisions, ...)
is drawn at an intensity of its own, none included: costs come out about log-uniform, and candidates
that only differ in one way from the whole are among them. That training should follow what a search
looks at is the finding of Wang et al. 2021, AttentiveNAS, arXiv:2011.09011.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autocompress.core.space import Choice, Genome, SearchSpace

#: Share of the draws in which a family of genes stays at its first options.
_UNTOUCHED = 0.5
#: Share of the draws in which all genes of a family get the same setting.
_EVEN = 0.5
#: The largest candidate is drawn again so often: a space may have hardly any other.
_TRIES = 50


@dataclass(frozen=True, slots=True)
class _Family:
    """How strongly the genes of one kind are drawn.

    Attributes:
        intensity: 0 is the first option, 1 the last one.
        even: whether all of its genes get the same setting.
        place: where in an unordered choice's options that setting stands, in 0..1.
    """

    intensity: float
    even: bool
    place: float


def draw(space: SearchSpace, rng: np.random.Generator, *, reach: float = 1.0) -> Genome:
    """A canonical genome anywhere between the largest candidate and the smallest, never the former.

    Args:
        space: whose genome is drawn; genes of recipes stay at their first option.
        rng: gives all randomness.
        reach: the greatest intensity, in 0..1: how far ordered choices go from their first option,
            and how many of the others leave it.
    """
    genome = space.original
    for _ in range(_TRIES):
        genome = _drawn(space, rng, reach)
        if genome.any():
            break
    return genome


def _drawn(space: SearchSpace, rng: np.random.Generator, reach: float) -> Genome:
    genome = space.original
    families: dict[str, _Family] = {}
    for i, choice in enumerate(space.choices):
        name = choice.name.partition(":")[0]
        if name not in families:
            families[name] = _family(rng, reach)
        if choice.kind != "recipe":
            genome[i] = _option(choice, families[name], rng)
    return space.canonical(genome)


def _family(rng: np.random.Generator, reach: float) -> _Family:
    intensity = reach * float(rng.random()) if rng.random() >= _UNTOUCHED else 0.0
    return _Family(intensity, bool(rng.random() < _EVEN), float(rng.random()))


def _option(choice: Choice, family: _Family, rng: np.random.Generator) -> int:
    last = len(choice.options) - 1
    if choice.ordered:
        if family.even:
            return round(family.intensity * last)
        return int(rng.binomial(last, family.intensity))
    # no option of a set is nearer to the first than another
    if family.even:
        return int(family.place * len(choice.options)) if family.intensity > 0 else 0
    return int(rng.integers(0, last + 1)) if rng.random() < family.intensity else 0
