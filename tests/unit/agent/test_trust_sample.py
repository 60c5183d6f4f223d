"""Which candidates are compared: from where, within which bounds, in what time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autocompress.agent import trust_sample
from autocompress.agent.trust_sample import POOL, is_whole, sample, spread_over
from autocompress.compression.registry import make_techniques
from autocompress.core.budget import Fidelity
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.space import Genome
from autocompress.elastic.space import ElasticSpace
from tests.integration.runs import SmallCNN
from tests.unit.networks import EVERYTHING, example
from tests.unit.networks import space as named_space

NAN = float("nan")


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return named_space("resnet")


@pytest.fixture(scope="module")
def cnn_space() -> ElasticSpace:
    """Of a model whose training back is searched, too."""
    techniques = make_techniques(("pruning", "quantization", "distillation"))
    return ElasticSpace.from_model(SmallCNN(3).eval(), (example(16),), techniques=techniques)


def price(genomes: Sequence[Genome]) -> list[dict[str, float]]:
    """Cheaper the further every gene is from the original."""
    return [
        {"latency_ms": float(np.exp(-0.02 * np.sum(g))), "size_bytes": 1e6 - 1e3 * float(np.sum(g))}
        for g in genomes
    ]


class Counting:
    """Prices, counted, each of which takes its time."""

    def __init__(self, seconds: float = 0.0, fixed: float | None = None) -> None:
        self.seconds, self.fixed, self.calls = seconds, fixed, 0

    def __call__(self, genomes: Sequence[Genome]) -> list[dict[str, float]]:
        self.calls += len(genomes)
        time.sleep(self.seconds * len(genomes))
        rows = price(genomes)
        return rows if self.fixed is None else [{**row, "latency_ms": self.fixed} for row in rows]


def context(space: ElasticSpace, **changes: Any) -> Any:
    request = SimpleNamespace(
        seed=changes.pop("seed", 0),
        bounds=parse_constraints(changes.pop("bounds", {})),
        objectives=parse_objectives(["accuracy", "latency_ms", "size_bytes"]),
    )
    values = {
        "space": space, "request": request, "sensitivity": {}, "from_scratch": False,
        "plan": SimpleNamespace(fidelity=changes.pop("fidelity", Fidelity.SHORT)),
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def keys(genomes: list[Genome]) -> list[bytes]:
    return [genome.tobytes() for genome in genomes]


def test_the_sample_is_spread_over_the_prices(space: ElasticSpace) -> None:
    found = sample(context(space), price, 10)
    assert len(found) == len(set(keys(found))) == 10
    prices = [row["latency_ms"] for row in price(found)]
    bands = np.digitize(prices, np.quantile(prices, [0.25, 0.5, 0.75]))
    assert set(bands) == {0, 1, 2, 3}
    assert max(prices) > 1.3 * min(prices)


@pytest.mark.parametrize("uniformly", [False, True])
def test_the_same_seed_gives_the_same_sample(space: ElasticSpace, uniformly: bool) -> None:
    one, two, other = (
        keys(sample(context(space, seed=s), price, 8, uniformly=uniformly)) for s in (1, 1, 2)
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize("uniformly", [False, True])
def test_bounds_are_kept_and_what_breaks_them_is_repaired(
    space: ElasticSpace, uniformly: bool
) -> None:
    prices = [row["latency_ms"] for row in price(sample(context(space), price, 12))]
    bound = 0.9 * min(prices)
    found = sample(context(space, bounds={"latency_ms": bound}), price, 8, uniformly=uniformly)
    assert len(found) == len(set(keys(found))) == 8
    assert all(row["latency_ms"] <= bound for row in price(found))


@pytest.mark.parametrize("uniformly", [False, True])
def test_repairing_ends_when_it_keeps_failing(space: ElasticSpace, uniformly: bool) -> None:
    """Nothing is within the bound: three walks, of a price of every single change each."""
    counted = Counting(fixed=1.0)
    bounds = {"latency_ms": 0.5}
    assert sample(context(space, bounds=bounds), counted, 8, uniformly=uniformly) == []
    changes = int((space.sizes - 1).sum())
    assert counted.calls <= POOL * 8 + 3 * (min(changes, 512) + 2)


def test_repairing_ends_with_the_time(space: ElasticSpace) -> None:
    counted = Counting(seconds=0.002)
    bounds = {"latency_ms": 0.7 * min(r["latency_ms"] for r in price([space.sizes - 1]))}
    began = time.monotonic()
    found = sample(context(space, bounds=bounds), counted, 8, deadline=began + 0.3)
    taken = time.monotonic() - began
    assert found == []
    # what is looked at is priced in any case; after that no more than a part of a step is
    assert taken < 0.3 + 0.002 * (POOL * 8 + 2 * trust_sample._CHUNK) + 2.0
    late = Counting()
    sample(context(space, bounds=bounds), late, 8, deadline=time.monotonic() - 1)
    assert late.calls <= POOL * 8


def test_what_every_step_has_trained_is_left_out(
    space: ElasticSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates of the original's architecture, widths and ranks, in whatever bits."""
    stored = np.array([choice.name.startswith("precision:") for choice in space.choices])

    def whole(space: ElasticSpace, rng: np.random.Generator, n: int) -> list[Genome]:
        return [space.canonical(np.where(stored, space.sample(rng), 0)) for _ in range(n)]

    def shaped(from_scratch: bool) -> list[bool]:
        found = sample(context(space, from_scratch=from_scratch), price, 12)
        assert len(found) == 12
        return [bool(genome[~stored].any()) for genome in found]

    monkeypatch.setattr(trust_sample, "neighbours", whole)
    assert not all(shaped(from_scratch=False))
    assert all(shaped(from_scratch=True))


def test_what_is_whole(space: ElasticSpace) -> None:
    original = space.decode(space.original)
    for i, choice in enumerate(space.choices):
        genome = space.original
        genome[i] = len(choice.options) - 1
        genome = space.canonical(genome)
        if genome.any():
            bits = choice.name.startswith(("precision:", "recipe:", "codebook:"))
            assert is_whole(space.decode(genome), original) == bits, choice.name


@pytest.mark.parametrize(
    "techniques",
    [("pruning", "low_rank", "sparsity", "quantization"), ("pruning", "quantization")],
)
def test_a_space_held_in_shape_has_a_sample(
    space: ElasticSpace, techniques: tuple[str, ...]
) -> None:
    """With ranks and zeros to choose, others than the whole; without, bits alone are compared."""
    held = space.specialised(make_techniques(techniques), EVERYTHING, ["architecture", "width:*"])
    found = sample(context(held, from_scratch=True), price, 8)
    assert len(found) == len(set(keys(found))) == 8
    original = held.decode(held.original)
    whole = [is_whole(held.decode(genome), original) for genome in found]
    assert all(whole) if len(techniques) == 2 else not any(whole)


def test_recipes_stay_as_usual(cnn_space: ElasticSpace) -> None:
    recipes = [i for i, choice in enumerate(cnn_space.choices) if choice.kind == "recipe"]
    assert recipes
    for genome in sample(context(cnn_space), price, 10):
        assert not genome[recipes].any()


@pytest.mark.parametrize("fidelity", [Fidelity.SHORT, Fidelity.INHERITED])
def test_uniform_samples_are_of_random_searchs_own_kind(
    cnn_space: ElasticSpace, fidelity: Fidelity
) -> None:
    """Each option of a gene as often as another; recipes only where trials are trained."""
    found = [
        genome
        for seed in range(30)
        for genome in sample(
            context(cnn_space, seed=seed, fidelity=fidelity), price, 10, uniformly=True
        )
    ]
    assert len(found) == 300
    for i, choice in enumerate(cnn_space.choices):
        options = len(choice.options)
        if choice.condition is not None or options == 1:
            continue
        counts = np.bincount([int(genome[i]) for genome in found], minlength=options)
        if choice.kind == "recipe" and not fidelity.trains:
            assert counts[0] == 300
        else:
            expected = 300 / options
            assert abs(counts - expected).max() < 5 * np.sqrt(expected), choice.name


def test_what_is_expected_to_lose_least_is_preferred() -> None:
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
