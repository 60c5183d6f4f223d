"""Feasibility first: repair what the table prices as too dear, or say what is nearest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autocompress.core.candidate import Candidate
from autocompress.core.space import Genome, SearchSpace
from autocompress.errors import InfeasibleError
from autocompress.search.pricing import Pricer, describe, is_upper

Matrix: TypeAlias = npt.NDArray[np.float64]

#: Spaces up to this many genomes are enumerated instead of sampled.
ENUMERABLE = 4096

_NEIGHBOURS = 512
_ROUNDS = 12
_STARTS = 32


def repair(
    space: SearchSpace, pricer: Pricer, genome: Genome, *, rng: np.random.Generator
) -> Genome | None:
    """A genome near ``genome`` that meets the priced constraints, or None.

    Walks along single-gene changes that lower the sum of relative violations, in random order,
    and stops at the first feasible genome on the way: small changes, and not always the same
    genes. It prices all changes of a step, and all points of the walk, in one call each.

    Args:
        space: where the genome belongs.
        pricer: prices genomes and knows the constraints.
        genome: canonical.
        rng: the order of the changes.
    """
    found, score = _descend(space, pricer, genome, _total, rng)
    return found if score == 0 else None


def canonical_rows(space: SearchSpace, genomes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each row canonical; free of cost for spaces whose genes are always active."""
    if any(c.condition is not None for c in space.choices):
        return np.array([space.canonical(g) for g in genomes]).reshape(genomes.shape)
    return genomes


def all_genomes(space: SearchSpace) -> npt.NDArray[np.int64] | None:
    """Every canonical genome once, in lexicographic order; None when there are too many."""
    if space.log10_size > np.log10(ENUMERABLE):
        return None
    raw = np.array(list(product(*(range(int(n)) for n in space.sizes))), dtype=np.int64)
    return np.unique(canonical_rows(space, raw.reshape(-1, len(space.choices))), axis=0)


_Score: TypeAlias = Callable[[Matrix], npt.NDArray[np.float64]]


def _total(violations: Matrix) -> npt.NDArray[np.float64]:
    return np.asarray(violations.sum(axis=1), dtype=np.float64)


def _descend(
    space: SearchSpace, pricer: Pricer, genome: Genome, score: _Score, rng: np.random.Generator
) -> tuple[Genome, float]:
    best = float(score(pricer.violations([genome]))[0])
    for _ in range(_ROUNDS):
        if best == 0:
            break
        walk = _walk(space, pricer, genome, best, score, rng)
        if walk is None:
            break
        scores = score(pricer.violations(list(walk)))
        step = int(np.argmax(scores == 0)) if (scores == 0).any() else int(np.argmin(scores))
        if scores[step] >= best:
            break
        genome, best = walk[step], float(scores[step])
    return genome, best


def _walk(
    space: SearchSpace,
    pricer: Pricer,
    genome: Genome,
    best: float,
    score: _Score,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64] | None:
    """Genomes on a walk that takes one improving change after the other; None without any."""
    moves = _moves(space, genome)
    if len(moves) > _NEIGHBOURS:
        moves = moves[np.sort(rng.choice(len(moves), _NEIGHBOURS, replace=False))]
    if not len(moves):
        return None
    changed = np.repeat(genome[None], len(moves), axis=0)
    changed[np.arange(len(moves)), moves[:, 0]] = moves[:, 1]
    changed = canonical_rows(space, changed)
    scores = score(pricer.violations(list(changed)))
    better = moves[rng.permutation(len(moves))]
    better = better[np.isin(_codes(better), _codes(moves[scores < best]))]
    if not len(better):
        return None
    _, first = np.unique(better[:, 0], return_index=True)  # one change a gene, chosen at random
    better = better[np.sort(first)]
    walk = np.repeat(genome[None], len(better), axis=0)
    for step, (gene, option) in enumerate(better):
        walk[step:, gene] = option
    single = changed[int(np.argmin(scores))]  # in case the changes spoil each other
    return np.vstack([canonical_rows(space, walk), single[None]])


def _moves(space: SearchSpace, genome: Genome) -> npt.NDArray[np.int64]:
    """All single-gene changes as rows of (gene, option)."""
    sizes = space.sizes
    rows = [
        (gene, option)
        for gene in np.flatnonzero(space.active(genome))
        for option in range(int(sizes[gene]))
        if option != genome[gene]
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _codes(moves: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return moves[:, 0] * 1_000_000 + moves[:, 1]


@dataclass(frozen=True, slots=True)
class NearCandidate:
    """A candidate that misses the constraints by little.

    Attributes:
        candidate: the candidate.
        metrics: its priced metrics.
        violations: by constrained metric, how far it is beyond the bound, relative to it.
    """

    candidate: Candidate
    metrics: Mapping[str, float]
    violations: Mapping[str, float]


class NoFeasibleCandidateError(InfeasibleError):
    """Nothing in the space meets the priced constraints, as far as was found.

    Attributes:
        nearest: up to three candidates, the nearest first.
        relaxations: by metric, the bound with which this constraint alone, the others kept, would
            be met; metrics that cannot help alone are missing.
    """

    def __init__(
        self, message: str, *, nearest: Sequence[NearCandidate], relaxations: Mapping[str, float]
    ) -> None:
        super().__init__(message)
        self.nearest = tuple(nearest)
        self.relaxations = dict(relaxations)


def find_feasible(space: SearchSpace, pricer: Pricer, *, rng: np.random.Generator) -> Genome:
    """A feasible genome, looked for with more effort than :func:`repair`.

    Small spaces are enumerated; in others, walks start from the least compressed candidate, from
    the last option of every gene and from random genomes.

    Raises:
        NoFeasibleCandidateError: there is none, as far as was found.
    """
    pool = all_genomes(space)
    if pool is None:
        last = space.canonical(space.sizes - 1)
        starts = [space.original, last, *(space.sample(rng) for _ in range(_STARTS))]
        ends = [_descend(space, pricer, start, _total, rng)[0] for start in starts]
        pool = np.unique(np.array(ends), axis=0)
    violations = pricer.violations(list(pool))
    total = _total(violations)
    if (total == 0).any():
        return np.asarray(pool[int(rng.choice(np.flatnonzero(total == 0)))], dtype=np.int64)
    order = np.argsort(total, kind="stable")[:3]
    nearest = [_near(space, pricer, pool[i], violations[i]) for i in order]
    relaxations = {}
    for column, constraint in enumerate(pricer.constraints):
        bound = _relaxed(space, pricer, pool, column, rng)
        if bound is not None:
            relaxations[constraint.metric] = bound
    raise NoFeasibleCandidateError(
        _message(pricer, nearest, relaxations), nearest=nearest, relaxations=relaxations
    )


def _relaxed(
    space: SearchSpace,
    pricer: Pricer,
    pool: npt.NDArray[np.int64],
    column: int,
    rng: np.random.Generator,
) -> float | None:
    """The value of one constraint's metric closest to its bound, with all others met."""

    def score(violations: Matrix) -> npt.NDArray[np.float64]:
        others = np.delete(violations, column, axis=1).sum(axis=1)
        return np.asarray(others * 1e6 + violations[:, column], dtype=np.float64)

    if all_genomes(space) is None:
        starts = pool[np.argsort(score(pricer.violations(list(pool))))[:4]]
        ends = [_descend(space, pricer, start, score, rng)[0] for start in starts]
        pool = np.vstack([pool, *(e[None] for e in ends)])
    violations = pricer.violations(list(pool))
    others = np.delete(violations, column, axis=1).sum(axis=1)
    allowed = np.flatnonzero((others == 0) & np.isfinite(violations[:, column]))
    if not len(allowed):
        return None
    best = allowed[np.argmin(violations[allowed, column])]
    return pricer.metrics([pool[best]])[0][pricer.constraints[column].metric]


def _near(
    space: SearchSpace, pricer: Pricer, genome: Genome, violations: npt.NDArray[np.float64]
) -> NearCandidate:
    names = [c.metric for c in pricer.constraints]
    return NearCandidate(
        candidate=space.decode(genome),
        metrics=pricer.metrics([genome])[0],
        violations={n: float(v) for n, v in zip(names, violations, strict=True) if v > 0},
    )


def _message(
    pricer: Pricer, nearest: Sequence[NearCandidate], relaxations: Mapping[str, float]
) -> str:
    wanted = " and ".join(describe(c) for c in pricer.constraints)
    names = [c.metric for c in pricer.constraints]
    shown = "; ".join(
        ", ".join(f"{n} {_number(near.metrics[n])}" for n in names if n in near.metrics)
        for near in nearest
    )
    if relaxations:
        upper = {c.metric: is_upper(c) for c in pricer.constraints}
        advice = " or ".join(
            f"{n} to {_number(rounded(v, up=upper[n]))}" for n, v in relaxations.items()
        )
        advice = f"relax {advice}" + (" (one of them is enough)" if len(relaxations) > 1 else "")
    else:
        advice = f"relax all of {', '.join(names)} to the figures of the nearest"
    return f"no candidate meets {wanted}. Nearest: {shown}. What would help: {advice}"


def rounded(value: float, *, up: bool) -> float:
    """``value`` to four digits, away from what it bounds, so that the bound can be met."""
    if value == 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 3) if abs(value) < 1000 else 1.0
    return (math.ceil if up else math.floor)(value / unit) * unit


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
