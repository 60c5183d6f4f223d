"""Where a search begins: uniform settings, and cheap moves by what they cost in accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from autocompress.core.candidate import Scalar
from autocompress.core.space import Genome, SearchSpace

Price = Callable[[Sequence[Genome]], Sequence[Mapping[str, float]]]


#: Shares of the way from the widest to the narrowest, and from the deepest to the shallowest.
_SHAPES = (
    (0.0, 0.0), (1.0, 1.0), (0.5, 0.0), (0.0, 0.5), (0.0, 1.0), (0.5, 0.5), (0.5, 1.0), (0.75, 1.0),
    (0.25, 1.0), (1.0, 0.5), (0.25, 0.0), (0.75, 0.5),
)  # fmt: skip


def uniform_seeds(space: SearchSpace) -> list[tuple[str, Genome]]:
    """The same settings everywhere: each shape in int8 and in 4 bits, the outermost shapes first.

    Where the space has branches, every third is one with other branches throughout. A few in floats
    come last.
    """
    precisions = _options(space, "precision:")
    wanted: list[str | None] = [p for p in ("w8a8", "w4a8") if p in precisions]
    wanted = wanted or [None]
    usual, other = (
        [
            _uniform(space, width, depth, precision, branch)
            for width, depth in _SHAPES
            for branch in branches
            for precision in wanted
        ]
        for branches in (range(1), range(1, _most_options(space, "branch:")))
    )
    found = []
    while usual or other:
        found += [*usual[:2], *other[:1]]
        usual, other = usual[2:], other[1:]
    floats = [_uniform(space, width, depth, None, 0) for width, depth in _SHAPES[:3]]
    unique: dict[bytes, tuple[str, Genome]] = {}
    for name, genome in (*found, *floats):
        unique.setdefault(genome.tobytes(), (name, genome))
    return list(unique.values())


def _uniform(
    space: SearchSpace, width: float, depth: float, precision: str | None, branch: int
) -> tuple[str, Genome]:
    genome = space.original
    for i, choice in enumerate(space.choices):
        last = len(choice.options) - 1
        if choice.name.startswith("precision:") and precision is not None:
            genome[i] = _precision(choice.options, precision)
        elif choice.name.startswith("width:"):
            genome[i] = round(width * last)
        elif choice.name.startswith("depth:"):
            genome[i] = round(depth * last)
        elif choice.name.startswith("branch:"):
            genome[i] = min(branch, last)
    label = f"{precision or 'fp32'}, width -{width:.0%}, depth -{depth:.0%}"
    return label + (f", branch {branch}" if branch else ""), space.canonical(genome)


def _precision(options: Sequence[Scalar | None], wanted: str) -> int:
    """Where ``wanted`` stands, or the same bits of weights with floats around them, or the first.

    Embeddings have the bits of their weights alone.
    """
    stored = wanted.partition("a")[0] + "a32"
    return next((options.index(one) for one in (wanted, stored) if one in options), 0)


def sensitivity_seeds(
    space: SearchSpace,
    sensitivity: Mapping[str, Mapping[int, float]],
    price: Price,
    metric: str,
    *,
    start: Genome,
    count: int = 10,
    label: str = "sensitivity",
    allowed: Callable[[str, Scalar | None], bool] = lambda gene, value: True,
) -> list[tuple[str, Genome]]:
    """Greedy solutions of the additive problem, from ``start`` towards ever cheaper candidates.

    Each move sets one gene to the option with the least accuracy lost per price saved, both taken
    as additive (the marginal rule for the multiple-choice knapsack); ``count`` points along the way
    are returned.

    Args:
        space: whose genomes are built.
        sensitivity: gene to option index to accuracy lost by that option alone.
        price: priced metrics of genomes.
        metric: the price that moves are to save, such as "latency_ms".
        start: the first genome.
        count: how many points to return.
        label: with what the names of the points begin.
        allowed: whether a gene may move to a value.
    """
    path = [start.copy()]
    genome = start.copy()
    base = float(price([genome])[0].get(metric, float("nan")))
    if not np.isfinite(base):
        return []
    for _ in range(4 * len(space.choices)):
        moves = list(_moves(space, sensitivity, genome, allowed))
        if not moves:
            break
        now = float(price([genome])[0][metric])
        prices = [float(row[metric]) for row in price([moved for _, moved in moves])]
        rated = [
            (max(loss, 1e-4) / (now - cost), i)
            for i, ((loss, _), cost) in enumerate(zip(moves, prices, strict=True))
            if now - cost > 1e-6 * base
        ]
        if not rated:
            break
        genome = moves[min(rated)[1]][1]
        path.append(genome)
    picks = np.unique(np.linspace(0, len(path) - 1, min(count, len(path))).round().astype(int))
    return [(f"{label}, {metric}, {int(i)} moves", space.canonical(path[i])) for i in picks]


def _moves(
    space: SearchSpace,
    sensitivity: Mapping[str, Mapping[int, float]],
    genome: Genome,
    allowed: Callable[[str, Scalar | None], bool],
) -> Iterator[tuple[float, Genome]]:
    """What each single change loses, and the genome after it."""
    active = space.active(genome)
    for i, choice in enumerate(space.choices):
        known = sensitivity.get(choice.name)
        if known is None or not active[i]:
            continue
        here = known.get(int(genome[i]), 0.0)
        for option, loss in known.items():
            if option > int(genome[i]) and allowed(choice.name, choice.options[option]):
                moved = genome.copy()
                moved[i] = option
                yield max(0.0, loss - here), moved


def neighbours(space: SearchSpace, rng: np.random.Generator, n: int) -> list[Genome]:
    """``n`` genomes a few changes away from the uniform ones; reproducible from ``rng``."""
    bases = [genome for _, genome in uniform_seeds(space)]
    found = []
    for k in range(n):
        genome = bases[k % len(bases)].copy()
        changes = rng.random(len(genome)) < rng.choice([0.05, 0.15, 0.4])
        genome[changes] = rng.integers(0, space.sizes)[changes]
        found.append(space.canonical(genome))
    return found


def _options(space: SearchSpace, prefix: str) -> set[object]:
    """What any of the genes offers: layers of different kinds offer different things."""
    return {o for c in space.choices if c.name.startswith(prefix) for o in c.options}


def _most_options(space: SearchSpace, prefix: str) -> int:
    found = [len(c.options) for c in space.choices if c.name.startswith(prefix)]
    return max(found, default=1)
