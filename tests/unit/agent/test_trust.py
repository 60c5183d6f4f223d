"""What is compared of candidates at two fidelities, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.agent.run_folder import RunFolder
from autocompress.agent.trust import (
    compare,
    gaps_in_words,
    read_comparisons,
    write_comparison,
)
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.trial import TrialRecord
from autocompress.errors import StorageError

PAIR = (Fidelity.INHERITED, Fidelity.SHORT)


def trial(number: int, accuracy: float | None, fidelity: Fidelity, genome: int) -> TrialRecord:
    complete = accuracy is not None
    return TrialRecord(
        number=number, genome=(genome,), candidate=Candidate({"i": genome}), fidelity=fidelity,
        state="complete" if complete else "failed",
        metrics={"accuracy": accuracy, "latency_ms": 1.0} if accuracy is not None else {},
        error=None if complete else "loss is NaN", seconds=2.0, train_steps=7,
    )  # fmt: skip


def trials() -> tuple[list[TrialRecord], list[TrialRecord]]:
    scores = [0.2, 0.4, None, 0.5, 0.6, 0.8]
    cheap = [trial(i, score, Fidelity.INHERITED, i) for i, score in enumerate(scores)]
    after = {0: 0.5, 1: 0.6, 3: None, 4: 0.7}
    dear = [trial(6 + i, score, Fidelity.SHORT, i) for i, score in after.items()]
    return cheap, dear


def test_candidates_without_both_accuracies_are_named() -> None:
    found = compare("trust", *trials(), PAIR, lambda value: value, seed=0)
    assert [row["before"] for row in found.candidates] == [0.2, 0.4, 0.6]
    assert [row["after"] for row in found.candidates] == [0.5, 0.6, 0.7]
    assert found.agreement.spearman == pytest.approx(1.0)
    assert [row["reason"] for row in found.left_out] == [
        "inherited: loss is NaN", "short: loss is NaN", "short: it was not come to",
    ]  # fmt: skip


def test_candidates_that_not_even_the_cheap_round_came_to_are_named() -> None:
    cheap, dear = trials()
    asked = [*(t.candidate for t in cheap), Candidate({"i": 98}), Candidate({"i": 99})]
    found = compare("trust", cheap, dear, PAIR, lambda value: value, seed=0, asked=asked)
    reasons = {row["id"]: row["reason"] for row in found.left_out}
    assert len(reasons) == 5
    assert len(reasons) + len(found.candidates) == len(asked)
    assert [reasons[c.id] for c in asked[-2:]] == ["inherited: it was not come to"] * 2


def test_shares_of_few_examples_are_ties_sooner() -> None:
    cheap = [trial(i, 0.5 + 0.01 * i, Fidelity.INHERITED, i) for i in range(4)]
    dear = [trial(4 + i, 0.5 + 0.1 * i, Fidelity.SHORT, i) for i in range(4)]
    found = [
        compare("trust", cheap, dear, PAIR, lambda v: v, seed=0, examples=examples).agreement
        for examples in (None, (10**6, 10**6), (300, 10**6))
    ]
    assert [a.distinct for a in found] == [4, 4, 2]


def test_a_metric_that_is_better_when_smaller_is_turned_back() -> None:
    cheap = [trial(i, -0.1 * i, Fidelity.INHERITED, i) for i in range(4)]
    dear = [trial(4 + i, -0.05 * i, Fidelity.SHORT, i) for i in range(4)]
    found = compare("trust", cheap, dear, PAIR, lambda value: -value, seed=0)
    assert [row["before"] for row in found.candidates] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert found.agreement.spearman == pytest.approx(1.0)
    assert found.agreement.mean_change > 0  # of scores: larger is better


def test_comparisons_are_kept_by_stage(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_comparisons(folder) == {}
    one = compare("trust", *trials(), PAIR, lambda value: value, seed=0)
    other = compare("finalise", [], [], PAIR, lambda value: value, seed=0)
    write_comparison(folder, one)
    write_comparison(folder, other)
    write_comparison(folder, one)
    found = read_comparisons(folder)
    assert list(found) == ["trust", "finalise"]
    assert found["trust"].to_json() == one.to_json()
    assert found["finalise"].to_json() == other.to_json()
    (tmp_path / "trust.json").write_text('{"comparisons": [{"stage": "trust"}]}')
    with pytest.raises(StorageError, match=r"trust\.json is damaged"):
        read_comparisons(folder)


def test_gaps_are_in_points_of_shares() -> None:
    agreement = compare("trust", *trials(), PAIR, lambda value: value, seed=0).agreement
    assert gaps_in_words(agreement, share=True) == (
        "they differ by 20 points on average and 30 points at most"
    )
    assert "0.2 on average and 0.3 at most" in gaps_in_words(agreement, share=False)
    nothing = compare("trust", [], [], PAIR, lambda value: value, seed=0).agreement
    assert gaps_in_words(nothing, share=True) == "there is nothing to compare"
