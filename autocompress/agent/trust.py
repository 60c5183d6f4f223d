"""Comparisons of cheap accuracies with dearer ones, and ``trust.json``, which keeps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.agent.run_folder import RunFolder
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.json_values import finite
from autocompress.core.trial import TrialRecord
from autocompress.evaluation.agreement import Agreement, rank_agreement

FILE = "trust.json"


@dataclass(frozen=True)
class Comparison:
    """The accuracies of the same candidates at two fidelities.

    Attributes:
        stage: which stage compared them.
        before: the cheaper fidelity.
        after: the dearer one.
        agreement: of the scores.
        candidates: a row each: ``id``, ``before`` and ``after`` (the task's metric), the numbers of
            the two trials, their seconds and the dearer one's training steps, and priced metrics.
        left_out: a row for each that has not both, with the ``reason``.
        sentence: what follows from it, in words.
        fidelity: what the search's trials are run at because of it; None where none is chosen.
    """

    stage: str
    before: Fidelity
    after: Fidelity
    agreement: Agreement
    candidates: tuple[Mapping[str, Any], ...] = ()
    left_out: tuple[Mapping[str, Any], ...] = ()
    sentence: str = ""
    fidelity: Fidelity | None = None

    def to_json(self) -> dict[str, Any]:
        """One of the ``comparisons`` of ``trust.json``."""
        return {
            "stage": self.stage,
            "before": self.before.value,
            "after": self.after.value,
            "agreement": self.agreement.to_json(),
            "candidates": [dict(row) for row in self.candidates],
            "left_out": [dict(row) for row in self.left_out],
            "sentence": self.sentence,
            "fidelity": None if self.fidelity is None else self.fidelity.value,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """The comparison that :meth:`to_json` wrote."""
        chosen = value.get("fidelity")
        return cls(
            stage=str(value["stage"]),
            before=Fidelity(value["before"]),
            after=Fidelity(value["after"]),
            agreement=Agreement.from_json(value["agreement"]),
            candidates=tuple(value["candidates"]),
            left_out=tuple(value["left_out"]),
            sentence=str(value["sentence"]),
            fidelity=None if chosen is None else Fidelity(chosen),
        )


def compare(
    stage: str,
    before: Sequence[TrialRecord],
    after: Sequence[TrialRecord],
    fidelities: tuple[Fidelity, Fidelity],
    metric: Callable[[float], float],
    *,
    seed: int,
    asked: Sequence[Candidate] = (),
    examples: tuple[int, int] | None = None,
) -> Comparison:
    """Compare the trials of the same candidates at two fidelities.

    Args:
        stage: which stage does.
        before: trials at the cheaper fidelity, failures included.
        after: trials at the dearer one; candidates without one are left out with that reason.
        fidelities: the two.
        metric: a trial's accuracy (larger is better) to the task's metric.
        seed: of the bootstrap.
        asked: candidates that were to be compared; those without any trial are left out with that
            reason.
        examples: how many the accuracies of each fidelity are shares of; None where they are none.
    """
    dearer = {t.genome: t for t in after}
    there = {t.candidate.id for t in before}
    rows, scores = [], []
    left_out = [
        {"id": c.id, "reason": _not_come_to(fidelities[0])} for c in asked if c.id not in there
    ]
    for cheap in before:
        dear = dearer.get(cheap.genome)
        reason = _why_not(cheap) or (
            _not_come_to(fidelities[1]) if dear is None else _why_not(dear)
        )
        if dear is None or reason:
            left_out.append({"id": cheap.candidate.id, "reason": reason})
            continue
        scores.append((cheap.metrics["accuracy"], dear.metrics["accuracy"]))
        prices = {k: v for k, v in cheap.metrics.items() if not k.startswith("accuracy")}
        rows.append(
            {
                "id": cheap.candidate.id,
                "before": metric(scores[-1][0]),
                "after": metric(scores[-1][1]),
                "number_before": cheap.number, "number_after": dear.number,
                "seconds_before": cheap.seconds, "seconds_after": dear.seconds,
                "train_steps": dear.train_steps, **prices,
            }
        )  # fmt: skip
    agreement = rank_agreement(
        [a for a, _ in scores], [b for _, b in scores], seed=seed, examples=examples
    )
    return Comparison(stage, *fidelities, agreement, tuple(rows), tuple(left_out))


def _why_not(trial: TrialRecord) -> str:
    """Why a trial has no accuracy to compare; empty when it has one."""
    if trial.state == "complete" and "accuracy" in trial.metrics:
        return ""
    return f"{trial.fidelity.value}: {trial.error or 'it has no accuracy'}"


def _not_come_to(fidelity: Fidelity) -> str:
    return f"{fidelity.value}: it was not come to"


def gaps_in_words(agreement: Agreement, *, share: bool) -> str:
    """Mean and largest difference, in points where the metric is a share of the examples."""
    if math.isnan(agreement.mean_gap):
        return "there is nothing to compare"
    scale, unit = (100.0, " points") if share else (1.0, "")
    return (
        f"they differ by {scale * agreement.mean_gap:.3g}{unit} on average and "
        f"{scale * agreement.largest_gap:.3g}{unit} at most"
    )


def read_comparisons(folder: RunFolder) -> dict[str, Comparison]:
    """What ``trust.json`` holds, by stage.

    Raises:
        StorageError: it is damaged.
    """
    found = folder.read_json(FILE, lambda v: [Comparison.from_json(c) for c in v["comparisons"]])
    return {comparison.stage: comparison for comparison in found or []}


def write_comparison(folder: RunFolder, comparison: Comparison) -> None:
    """Put a comparison into ``trust.json``; one of the same stage is replaced."""
    known = {**read_comparisons(folder), comparison.stage: comparison}
    folder.write_json(FILE, finite({"comparisons": [c.to_json() for c in known.values()]}))
