"""Search problems with known fronts, and evaluators that fail on purpose; numpy only.

A problem is a :class:`~autocompress.core.space.SearchSpace` whose metrics are sums of one table
row per active gene. Sums are kept in integers, so the known front is exact.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import METRICS
from autocompress.core.pareto import non_dominated
from autocompress.core.space import Choice, Condition, Genome, SearchSpace
from autocompress.core.trial import Evaluation, Evaluator
from autocompress.errors import RequestError

#: The metrics of every problem, with the unit of the integers they are summed in.
UNITS: Mapping[str, float] = {"accuracy": 1e-6, "latency_ms": 1e-3, "size_bytes": 1.0}

_ENUMERABLE = 20_000
_BASE = {"accuracy": 950_000, "latency_ms": 200, "size_bytes": 1000}


class AdditiveProblem(SearchSpace):
    """A space whose metrics are additive over genes, with an exactly known front.

    Later options of a gene cost accuracy and save milliseconds and bytes, each gene at its own
    rate, so that the front is a curve that no single gene explains. With ``blocks`` the first gene
    is a depth that switches the last genes off: a space with inactive genes.
    """

    def __init__(self, genes: int = 8, options: int = 4, *, seed: int = 0, blocks: int = 0) -> None:
        """Make a problem.

        Args:
            genes: number of genes, the depth gene not counted.
            options: options per gene, at least 2.
            seed: which of the problems of this size.
            blocks: how many of the last genes the depth gene can switch off, 0 for no depth gene.
        """
        if genes < 1 or options < 2 or not 0 <= blocks <= genes:
            raise RequestError(f"no problem has genes={genes}, options={options}, blocks={blocks}")
        self._label = f"additive-{genes}x{options}-{seed}" + (f"-{blocks}" if blocks else "")
        self._choices = _choices(genes, options, blocks)
        self._tables = _tables(self._choices, np.random.default_rng([seed, genes, options]))

    @property
    def name(self) -> str:
        """Its size and seed."""
        return self._label

    @property
    def choices(self) -> Sequence[Choice]:
        """Ordered genes, every third one unordered."""
        return self._choices

    def decode(self, genome: Genome) -> Candidate:
        """The options of the active genes, by gene name."""
        array = self.check(genome)
        active = self.active(array)
        return Candidate(
            architecture={
                choice.name: _scalar(choice.options[int(gene)])
                for choice, gene, on in zip(self._choices, array, active, strict=True)
                if on
            }
        )

    def encode(self, candidate: Candidate) -> Genome:
        """The inverse of :meth:`decode`."""
        genome = self.original
        for i, choice in enumerate(self._choices):
            if choice.name in candidate.architecture:
                value = candidate.architecture[choice.name]
                if value not in choice.options:
                    raise RequestError(f"{choice.name} is {value!r}; use one of {choice.options}")
                genome[i] = choice.options.index(value)
        return self.canonical(genome)

    def build(self, candidate: Candidate) -> Any:
        """There is no network behind a problem.

        Raises:
            RequestError: always.
        """
        raise RequestError(f"the problem {self.name!r} has no network to build")

    def metrics(self, genomes: Sequence[Genome] | npt.NDArray[np.int64]) -> list[dict[str, float]]:
        """All metrics of each genome."""
        array = np.array([self.canonical(g) for g in genomes], dtype=np.int64)
        array = array.reshape(-1, len(self._choices))
        active = np.array([self.active(g) for g in array], dtype=np.int64).reshape(array.shape)
        columns = {
            metric: _BASE[metric]
            + (table[np.arange(array.shape[1]), array] * active).sum(axis=1, dtype=np.int64)
            for metric, table in self._tables.items()
        }
        return [
            {metric: float(column[i]) * UNITS[metric] for metric, column in columns.items()}
            for i in range(len(array))
        ]

    def price(self, genomes: Sequence[Genome]) -> list[dict[str, float]]:
        """The metrics that need no evaluation: ``latency_ms`` and ``size_bytes``."""
        return [
            {name: value for name, value in row.items() if METRICS[name].priced}
            for row in self.metrics(genomes)
        ]

    def evaluator(self) -> ProblemEvaluator:
        """An evaluator that gives the accuracy."""
        return ProblemEvaluator(self)

    def front(
        self, objectives: Sequence[str] = ("accuracy", "latency_ms")
    ) -> npt.NDArray[np.float64]:
        """The exact front as metric values, shape ``(points, objectives)``, sorted by the first.

        Small spaces are enumerated; larger ones without inactive genes are solved gene by gene,
        keeping the front of the partial sums (exact, because the metrics are sums).
        """
        signs = np.array([-1 if METRICS[m].direction == "maximize" else 1 for m in objectives])
        sums = self._sums(objectives) * signs
        front = sums[non_dominated(sums)] * signs
        ordered = front[np.argsort(front[:, 0])]
        units = np.array([UNITS[m] for m in objectives])
        return np.asarray(ordered * units, dtype=np.float64)

    def enumerate(self) -> list[Genome]:
        """Every canonical genome, for small spaces.

        Raises:
            RequestError: the space has more than 20,000 genomes.
        """
        if self.log10_size > math.log10(_ENUMERABLE):
            raise RequestError(f"{self.name} is too large to enumerate")
        raw = product(*(range(int(n)) for n in self.sizes))
        unique = {tuple(self.canonical(np.array(g)).tolist()) for g in raw}
        return [np.array(g, dtype=np.int64) for g in sorted(unique)]

    def _sums(self, objectives: Sequence[str]) -> npt.NDArray[np.int64]:
        base = np.array([_BASE[m] for m in objectives], dtype=np.int64)
        if any(c.condition for c in self._choices):
            rows = self.metrics(self.enumerate())
            return np.array(
                [[round(row[m] / UNITS[m]) for m in objectives] for row in rows], dtype=np.int64
            )
        signs = np.array([-1 if METRICS[m].direction == "maximize" else 1 for m in objectives])
        sums = base[None]
        for i, size in enumerate(self.sizes):
            step = np.stack([self._tables[m][i, :size] for m in objectives], axis=1)
            sums = (sums[:, None] + step[None]).reshape(-1, len(objectives))
            sums = sums[non_dominated(sums * signs)]
        return sums


def _scalar(value: Any) -> int | float | str | bool:
    if value is None:
        raise RequestError("a problem's options are never None")
    return value  # type: ignore[no-any-return]


def _choices(genes: int, options: int, blocks: int) -> tuple[Choice, ...]:
    result = []
    if blocks:
        depths = tuple(range(genes, genes - blocks - 1, -1))
        result.append(Choice("depth:net", depths, kind="architecture"))
    for i in range(genes):
        condition = None
        if i >= genes - blocks:
            deep = tuple(range(genes, i, -1))
            condition = Condition("depth:net", deep)
        ordered = i % 3 != 2
        values: tuple[Any, ...] = tuple(range(options)) if ordered else tuple("abcdefgh"[:options])
        result.append(Choice(f"level:layer{i}", values, ordered=ordered, condition=condition))
    return tuple(result)


def _tables(
    choices: Sequence[Choice], rng: np.random.Generator
) -> dict[str, npt.NDArray[np.int64]]:
    shape = (len(choices), max(len(c.options) for c in choices))
    level = np.linspace(0, 1, shape[1])[None]
    sensitivity = rng.lognormal(0, 1, (shape[0], 1)) / shape[0]
    milliseconds = rng.lognormal(0, 1, (shape[0], 1)) / shape[0]
    size = rng.lognormal(0, 1, (shape[0], 1)) / shape[0]
    loss = sensitivity * level ** rng.uniform(1, 3, (shape[0], 1))
    saving = 1 - 0.9 * level ** rng.uniform(0.4, 1, (shape[0], 1))
    tables = {
        "accuracy": np.round(-250_000 * loss).astype(np.int64),
        "latency_ms": np.round(2000 * milliseconds * saving).astype(np.int64),
        "size_bytes": np.round(200_000 * size * saving**2).astype(np.int64),
    }
    if choices[0].name == "depth:net":  # what is skipped costs accuracy and nothing else
        skipped = np.arange(shape[1])
        tables["accuracy"][0] = -30_000 * skipped
        tables["latency_ms"][0] = 0
        tables["size_bytes"][0] = 0
    return tables


class ProblemEvaluator:
    """Gives a problem's accuracy, after a pause when asked to."""

    def __init__(
        self, problem: AdditiveProblem, *, seconds: float = 0.0, log: Path | str | None = None
    ) -> None:
        """Evaluate candidates of ``problem``.

        Args:
            problem: whose candidates are evaluated.
            seconds: how long every evaluation takes.
            log: a file that gets one line, the candidate's id, an evaluation.
        """
        self._problem = problem
        self._seconds = seconds
        self._log = None if log is None else str(log)

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        """The accuracy of a candidate; the same at every fidelity and seed."""
        if self._log is not None:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(candidate.id + "\n")
        if self._seconds:
            time.sleep(self._seconds)
        row = self._problem.metrics([self._problem.encode(candidate)])[0]
        return Evaluation(
            metrics={"accuracy": row["accuracy"]},
            train_steps=1,
            details={"seed": seed, "fidelity": str(fidelity)},
        )


class FaultyEvaluator:
    """Another evaluator, except for the candidates that are to fail.

    Faults: "raise" (an exception), "nan" (a NaN metric), "missing" (no metrics), "wrong" (not an
    Evaluation), "exit" (``sys.exit``), "hang" (an hour of sleep), "kill" (SIGKILL to its own
    process), "kill-once" (the same, the first time it is tried; needs ``marks``).
    """

    def __init__(
        self,
        evaluator: Evaluator,
        faults: Mapping[str, str],
        *,
        default: str = "",
        marks: Path | str | None = None,
    ) -> None:
        """Wrap ``evaluator``.

        Args:
            evaluator: evaluates whatever does not fail.
            faults: fault by candidate id.
            default: the fault of all other candidates, "" for none.
            marks: folder in which "kill-once" notes what was tried.
        """
        self._evaluator = evaluator
        self._faults = dict(faults)
        self._default = default
        self._marks = None if marks is None else str(marks)

    def evaluate(self, candidate: Candidate, *, fidelity: Fidelity, seed: int) -> Evaluation:
        """Fail as told, or evaluate."""
        fault = self._faults.get(candidate.id, self._default)
        if fault == "raise":
            raise ValueError(f"no good: {candidate.id}")
        if fault == "nan":
            return Evaluation(metrics={"accuracy": math.nan})
        if fault == "missing":
            return Evaluation()
        if fault == "wrong":
            return 0.5  # type: ignore[return-value]
        if fault == "exit":
            sys.exit(3)
        if fault == "hang":
            time.sleep(3600)
        if fault == "kill" or (fault == "kill-once" and self._first_time(candidate)):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._evaluator.evaluate(candidate, fidelity=fidelity, seed=seed)

    def _first_time(self, candidate: Candidate) -> bool:
        if self._marks is None:
            raise RequestError("'kill-once' needs the folder `marks`")
        mark = Path(self._marks) / candidate.id
        if mark.exists():
            return False
        mark.touch()
        return True
