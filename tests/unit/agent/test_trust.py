"""Which candidates are compared, and what is kept of the comparison."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autocompress.agent.run_folder import RunFolder
from autocompress.agent.stages import trust as stage
from autocompress.agent.trust import (
    compare,
    gaps_in_words,
    read_comparisons,
    spread_over,
    write_comparison,
)
from autocompress.compression.registry import make_techniques
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import StorageError
from tests.integration.runs import SmallCNN
from tests.unit.networks import example
from tests.unit.networks import space as named_space

NAN = float("nan")
PAIR = (Fidelity.INHERITED, Fidelity.SHORT)


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return named_space("resnet")


def price(genomes: Any) -> list[dict[str, float]]:
    """Cheaper the further every gene is from the original."""
    return [
        {"latency_ms": float(np.exp(-0.02 * np.sum(g))), "size_bytes": 1e6 - 1e3 * float(np.sum(g))}
        for g in genomes
    ]


def context(space: ElasticSpace, **changes: Any) -> Any:
    request = SimpleNamespace(
        seed=changes.pop("seed", 0),
        bounds=parse_constraints(changes.pop("bounds", {})),
        objectives=parse_objectives(["accuracy", "latency_ms", "size_bytes"]),
    )
    values = {"space": space, "request": request, "sensitivity": {}, "from_scratch": False}
    return SimpleNamespace(**{**values, **changes})


def keys(genomes: list[Genome]) -> list[bytes]:
    return [genome.tobytes() for genome in genomes]


def test_the_sample_is_spread_over_the_prices(space: ElasticSpace) -> None:
    found = stage.sample(context(space), price, 10)
    assert len(found) == len(set(keys(found))) == 10
    prices = [row["latency_ms"] for row in price(found)]
    bands = np.digitize(prices, np.quantile(prices, [0.25, 0.5, 0.75]))
    assert set(bands) == {0, 1, 2, 3}
    assert max(prices) > 1.3 * min(prices)


def test_the_same_seed_gives_the_same_sample(space: ElasticSpace) -> None:
    one, two, other = (keys(stage.sample(context(space, seed=s), price, 8)) for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_bounds_are_kept_and_what_breaks_them_is_repaired(space: ElasticSpace) -> None:
    bound = float(np.median([row["latency_ms"] for row in price([space.original])])) * 0.4
    found = stage.sample(context(space, bounds={"latency_ms": bound}), price, 8)
    assert len(found) == 8
    assert all(row["latency_ms"] <= bound for row in price(found))


def test_corners_that_every_step_has_trained_are_left_out(space: ElasticSpace) -> None:
    corners = {stage._shape(space.decode(space.original))}
    found = stage.sample(context(space, from_scratch=True), price, 12)
    assert not corners & {stage._shape(space.decode(genome)) for genome in found}


def test_recipes_stay_as_usual() -> None:
    techniques = make_techniques(("pruning", "quantization", "distillation"))
    space = ElasticSpace.from_model(SmallCNN(3).eval(), (example(16),), techniques=techniques)
    recipes = [i for i, choice in enumerate(space.choices) if choice.kind == "recipe"]
    assert recipes
    for genome in stage.sample(context(space), price, 10):
        assert not genome[recipes].any()


def test_what_is_expected_to_lose_least_is_preferred(space: ElasticSpace) -> None:
    prices = [1.0, 1.1, 1.2, 1.3, 9.0, 9.1, 9.2, 9.3]
    losses = [0.1, 0.5, 0.2, 0.6, 0.9, 0.1, 0.8, 0.2]
    for seed in range(5):
        low, high = spread_over(prices, losses, 2, np.random.default_rng(seed))
        assert (low, high) == (0, 5)


def test_the_first_ones_are_spread_too() -> None:
    prices = [float(i) for i in range(64)]
    found = spread_over(prices, [NAN] * 64, 8, np.random.default_rng(0))
    assert len(set(found)) == 8
    assert sorted(i // 8 for i in found) == list(range(8))
    assert [i // 8 for i in found[:4]] == [0, 4, 2, 6]


@pytest.mark.parametrize(("there", "expected"), [(0, 0), (3, 3), (8, 5)])
def test_no_more_than_there_are(there: int, expected: int) -> None:
    found = spread_over([1.0] * there, [NAN] * there, 5, np.random.default_rng(0))
    assert len(set(found)) == len(found) == expected


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
        "inherited: loss is NaN", "short: loss is NaN", "it was not come to",
    ]  # fmt: skip


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
