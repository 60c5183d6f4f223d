"""Finalists: spread over the front, then where full training is expected to pay."""

from __future__ import annotations

from dataclasses import replace

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


def test_models_that_differ_by_chance_are_both_trained() -> None:
    far = [trial(i, 0.90 + 0.01 * i, 1.0 + 0.1 * i) for i in range(5)]
    best, twin, worse = trial(10, 0.99, 2.0), trial(11, 0.989, 2.02), trial(12, 0.975, 2.1)
    chosen = numbers(first_finalists([*far, best, twin, worse], OBJECTIVES, 9, original=0.99))
    assert {10, 11} <= set(chosen[:3])
    assert 12 not in chosen[:3]


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
    assert min(more[:5]) < 4 < max(more[:5]), "on either side of what is trained"


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


def test_the_useless_come_last_even_where_they_are_smallest() -> None:
    """All are expected below the floor; a model that mostly errs is not worth training for it."""
    searched = [trial(0, 0.80, 5.0), trial(1, 0.84, 10.0), trial(2, 0.30, 1.0)]
    trained = [trial(0, 0.80, 5.0, Fidelity.FINAL)]
    more = next_finalists(searched, searched[:1], trained, OBJECTIVES, 2, original=0.95)
    assert numbers(more) == [1, 2]


def test_without_accuracy_among_the_objectives_the_useless_come_last_too() -> None:
    sizes = parse_objectives(("latency_ms", "macs"))
    searched = [
        replace(t, metrics={**t.metrics, "macs": 10.0 / t.metrics["latency_ms"]})
        for t in (trial(0, 0.95, 5.0), trial(1, 0.94, 4.0), trial(2, 0.1, 1.0), trial(3, 0.9, 3.0))
    ]
    trained = [replace(searched[0], fidelity=Fidelity.FINAL)]
    more = next_finalists(searched, searched[:1], trained, sizes, 3, original=0.95)
    assert numbers(more)[-1] == 2


def test_all_alike() -> None:
    searched = [trial(i, 0.9, 2.0) for i in range(4)]
    trained = [trial(0, 0.9, 2.0, Fidelity.FINAL)]
    more = next_finalists(searched, searched[:1], trained, OBJECTIVES, 3, original=0.9)
    assert numbers(more) == [1, 2, 3]


def test_a_third_of_the_places_goes_to_what_beats_the_baselines_close_to_them() -> None:
    """Int8 is there: what is as accurate and cheaper is chosen in every round."""
    int8 = {"accuracy": 0.985, "latency_ms": 5.0}
    searched = [trial(0, 0.7, 0.5), trial(1, 0.8, 0.7), trial(2, 0.85, 0.9), trial(3, 0.90, 1.2),
                trial(4, 0.984, 4.0), trial(5, 0.983, 3.9), trial(6, 0.99, 6.0),
                trial(7, 0.984, 9.0)]  # fmt: skip
    first = first_finalists(searched, OBJECTIVES, 3, original=0.99, known=[int8])
    assert first[0].number in (4, 5), "6 adds little, 7 nothing"
    trained = [replace(t, fidelity=Fidelity.FINAL) for t in first]
    more = numbers(
        next_finalists(searched, first, trained, OBJECTIVES, 3, original=0.99, known=[int8])
    )
    assert {4, 5} & set(more)
    assert 7 not in more
