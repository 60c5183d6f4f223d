"""Finalists: spread over the front, then where full training is expected to pay."""

from __future__ import annotations

from autocompress.agent.selection import first_finalists, next_finalists
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import parse_objectives
from autocompress.core.trial import TrialRecord, TrialState

OBJECTIVES = parse_objectives(("accuracy", "latency_ms"))


def trial(
    number: int,
    accuracy: float,
    latency: float,
    fidelity: Fidelity = Fidelity.SHORT,
    state: TrialState = "complete",
) -> TrialRecord:
    metrics = {"accuracy": accuracy, "latency_ms": latency} if state == "complete" else {}
    return TrialRecord(
        number=number, genome=(number,), candidate=Candidate(architecture={"n": number}),
        fidelity=fidelity, state=state, metrics=metrics, origin="test", seed=0,
    )  # fmt: skip


def numbers(records: list[TrialRecord]) -> list[int]:
    return [record.number for record in records]


SEARCHED = [trial(i, 0.90 + 0.01 * i, 1.0 + i) for i in range(10)]


def test_the_first_round_spreads_over_the_front() -> None:
    chosen = numbers(first_finalists(SEARCHED, OBJECTIVES, 4, original=0.99))
    assert {0, 9} <= set(chosen)
    assert len(chosen) == 4


def test_trials_of_little_use_come_last() -> None:
    poor = [trial(10 + i, 0.2 + 0.01 * i, 0.1 * i) for i in range(5)]
    chosen = first_finalists([*poor, *SEARCHED], OBJECTIVES, 8, original=0.99)
    assert all(t.metrics["accuracy"] >= 0.9 for t in chosen)


def test_what_small_models_win_back_makes_larger_ones_pointless() -> None:
    chosen = [SEARCHED[4]]
    trained = [trial(4, 0.99, 5.0, Fidelity.FINAL)]
    more = numbers(next_finalists(SEARCHED, chosen, trained, OBJECTIVES, 4, original=0.99))
    assert set(more) == {0, 1, 2, 3}, "all are expected at 0.99: only smaller ones are wanted"
    trained = [trial(4, 0.94, 5.0, Fidelity.FINAL)]  # nothing won back: the large ones are wanted
    more = numbers(next_finalists(SEARCHED, chosen, trained, OBJECTIVES, 9, original=0.99))
    assert set(more) == set(range(10)) - {4}
    assert min(more[:2]) < 4 < max(more[:2]), "on either side of what is trained"


def test_nothing_is_chosen_twice_not_even_what_failed() -> None:
    chosen = [SEARCHED[4], SEARCHED[5]]
    trained = [trial(4, 0.95, 5.0, Fidelity.FINAL), trial(5, 0, 0, Fidelity.FINAL, "failed")]
    more = numbers(next_finalists(SEARCHED, chosen, trained, OBJECTIVES, 20, original=0.99))
    assert sorted(more) == [0, 1, 2, 3, 6, 7, 8, 9]
    assert next_finalists(SEARCHED[:2], SEARCHED[:2], [], OBJECTIVES, 3) == []


def test_what_a_large_model_lost_by_chance_says_little() -> None:
    """Two good ones stay where they were, one far below comes close: small ones are worth it."""
    searched = [trial(0, 0.75, 1.0), trial(1, 0.76, 1.1), trial(2, 0.93, 1.2), trial(3, 0.96, 1.4),
                trial(4, 0.985, 3.0), trial(5, 0.99, 4.0), trial(6, 0.988, 5.0)]  # fmt: skip
    chosen = [searched[i] for i in (5, 4, 0)]
    trained = [trial(5, 0.985, 4.0, Fidelity.FINAL), trial(4, 0.985, 3.0, Fidelity.FINAL),
               trial(0, 0.97, 1.0, Fidelity.FINAL)]  # fmt: skip
    more = numbers(next_finalists(searched, chosen, trained, OBJECTIVES, 2, original=0.99))
    assert set(more) == {2, 3}
