"""The ends of a search space: its largest network and its smallest.

The largest is option 0 of every choice. Which options make the smallest is not always said by their
order: branches have none, and a factorisation that saves most in the full layer may save less, or
nothing, in a narrow one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from autocompress.core.candidate import Candidate
from autocompress.core.space import Choice, Genome, SearchSpace
from autocompress.elastic.space import ElasticSpace
from autocompress.graph.ops import Op


def smallest(space: SearchSpace) -> Candidate:
    """The candidate that computes and holds least.

    Ordered choices are at their last option: the fewest blocks, channels and pixels. Branches and
    ranks are then what has the smallest sum of two shares, of the largest network's
    multiply-accumulates and of its parameters: a table of embeddings multiplies nothing, so either
    count alone would miss something. What changes neither, such as a precision without an order,
    stays at option 0, and so do recipes. It is found without a search: each branch is tried once,
    and the ranks of all layers together, option by option. A space that is not elastic has no
    figures to go by, and its choices without an order stay at option 0.
    """
    genome = np.array([_last(choice) for choice in space.choices], dtype=np.int64)
    if isinstance(space, ElasticSpace):
        cost = _Cost(space)
        _settle_branches(space, genome, cost)
        _settle_ranks(space, genome, cost)
    return space.decode(space.canonical(genome))


def _last(choice: Choice) -> int:
    return len(choice.options) - 1 if choice.ordered and choice.kind != "recipe" else 0


class _Cost:
    """What operations compute and hold, as shares of what the largest network does."""

    def __init__(self, space: ElasticSpace) -> None:
        ops = space.graph.operations(space.decode(space.original))
        self.macs = max(1, sum(op.macs for op in ops))
        self.parameters = max(1, sum(op.parameters for op in ops))

    def __call__(self, ops: Iterable[Op]) -> float:
        return sum(op.macs / self.macs + op.parameters / self.parameters for op in ops)


def _settle_branches(space: ElasticSpace, genome: Genome, cost: _Cost) -> None:
    """Put the cheapest option of every architecture choice without an order into ``genome``."""
    for place, choice in enumerate(space.choices):
        if choice.kind != "architecture" or choice.ordered or not space.active(genome)[place]:
            continue
        genome[place] = _cheapest(
            cost(space.graph.operations(space.decode(_with(genome, [place], option))))
            for option in range(len(choice.options))
        )


def _settle_ranks(space: ElasticSpace, genome: Genome, cost: _Cost) -> None:
    """Put every layer's cheapest rank into ``genome``: no layer's rank changes another's cost."""
    ranks = {
        place: space.layers_of(choice)
        for place, choice in enumerate(space.choices)
        if _sets_rank(space, choice)
    }
    if not ranks:
        return
    sizes = space.sizes
    tried: dict[int, list[float]] = {place: [] for place in ranks}
    for option in range(max(int(sizes[place]) for place in ranks)):
        offering = [place for place in ranks if option < sizes[place]]
        ops = space.graph.operations(space.decode(_with(genome, offering, option)))
        by_layer = _by_layer(ops, {layer for place in offering for layer in ranks[place]})
        for place in offering:
            tried[place].append(cost(op for layer in ranks[place] for op in by_layer[layer]))
    for place, costs in tried.items():
        genome[place] = _cheapest(costs)


def _sets_rank(space: ElasticSpace, choice: Choice) -> bool:
    technique = space.technique_of(choice)
    if technique is None or choice.kind == "recipe":
        return False
    return "rank" in technique.settings(choice, choice.options[0])


def _with(genome: Genome, places: Sequence[int], option: int) -> Genome:
    changed = genome.copy()
    changed[places] = option
    return changed


def _by_layer(ops: Iterable[Op], layers: set[str]) -> Mapping[str, list[Op]]:
    """The operations of each layer; those of its factors are named after it."""
    found: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        name = op.layer or ""
        whole = name if name in layers else name.rpartition(".")[0]
        if whole in layers:
            found[whole].append(op)
    return found


def _cheapest(costs: Iterable[float]) -> int:
    """Where the smallest is; the first of equal ones."""
    return int(np.argmin(list(costs)))
