"""Where a search begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from autocompress.agent.seeds import neighbours, sensitivity_seeds, uniform_seeds
from autocompress.compression.registry import make_techniques
from autocompress.core.space import Genome
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from tests.unit.networks import EVERYTHING
from tests.unit.networks import space as named_space


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return named_space("resnet")


def _saved(genomes: Sequence[Genome]) -> list[Mapping[str, float]]:
    """Every step of every gene saves as much."""
    return [{"size_bytes": 1000.0 - float(np.sum(genome))} for genome in genomes]


def _losses(space: ElasticSpace) -> dict[str, dict[int, float]]:
    """The first gene costs least; of one gene, the next option costs more."""
    return {
        choice.name: {option: 0.01 * (i + 1) * option for option in range(len(choice.options))}
        for i, choice in enumerate(space.choices)
    }


def test_uniform_seeds_begin_with_the_whole_network_in_integers(space: ElasticSpace) -> None:
    seeds = uniform_seeds(space)
    assert [name.partition(",")[0] for name, _ in seeds[:2]] == ["w8a8", "w4a8"]
    for bits, (_, genome) in zip((8, 4), seeds[:2], strict=True):
        candidate = space.decode(genome)
        assert candidate.architecture == space.decode(space.original).architecture
        assert {p.weight_bits for p in candidate.layers.values()} == {bits}
    assert len({genome.tobytes() for _, genome in seeds}) == len(seeds)
    assert all((space.canonical(genome) == genome).all() for _, genome in seeds)


def test_each_point_of_a_path_is_cheaper_than_the_one_before(space: ElasticSpace) -> None:
    start = uniform_seeds(space)[0][1]
    path = sensitivity_seeds(space, _losses(space), _saved, "size_bytes", start=start, count=6)
    prices = [_saved([genome])[0]["size_bytes"] for _, genome in path]
    assert len(path) == 6
    assert prices == sorted(prices, reverse=True)
    assert (path[0][1] == start).all()
    again = sensitivity_seeds(space, _losses(space), _saved, "size_bytes", start=start, count=6)
    assert [name for name, _ in again] == [name for name, _ in path]


def test_a_path_goes_only_where_it_may(space: ElasticSpace) -> None:
    eight, four = (genome for _, genome in uniform_seeds(space)[:2])
    path = sensitivity_seeds(
        space, _losses(space), _saved, "size_bytes", start=eight, count=5, label="8 to 4 bits",
        allowed=lambda gene, value: gene.startswith("precision:") and value == "w4a8",
    )  # fmt: skip
    assert len(path) == 5
    assert path[0][1].tolist() == eight.tolist()
    assert path[-1][1].tolist() == four.tolist()
    for _, genome in path:
        assert all(g in (a, b) for g, a, b in zip(genome, eight, four, strict=True))
    assert all(name.startswith("8 to 4 bits, size_bytes") for name, _ in path)


def test_the_cheapest_loss_moves_first(space: ElasticSpace) -> None:
    start = space.original
    path = sensitivity_seeds(space, _losses(space), _saved, "size_bytes", start=start, count=10_000)
    moved = np.flatnonzero(path[1][1] != start)
    assert moved.tolist() == [np.flatnonzero(space.active(start))[0]]


def test_a_metric_without_prices_has_no_path(space: ElasticSpace) -> None:
    found = sensitivity_seeds(space, _losses(space), _saved, "energy_mj", start=space.original)
    assert found == []


def test_neighbours_come_again_from_the_same_seed(space: ElasticSpace) -> None:
    first, second = (neighbours(space, np.random.default_rng(4), 12) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert len({genome.tobytes() for genome in first}) > 6


def test_a_space_for_texts_has_integer_seeds_that_set_its_embedding() -> None:
    made = load_space(
        "text_encoder", input_shape=(8,), num_classes=2, vocabulary=50,
        techniques=make_techniques(None), capabilities=EVERYTHING,
    )  # fmt: skip
    seeds = uniform_seeds(made)
    assert [name.partition(",")[0] for name, _ in seeds[:2]] == ["w8a8", "w4a8"]
    for bits, (_, genome) in zip((8, 4), seeds[:2], strict=True):
        policies = made.decode(genome).layers
        assert (policies["tokens"].weight_bits, policies["tokens"].activation_bits) == (bits, 32)
        others = {(p.weight_bits, p.activation_bits) for n, p in policies.items() if n != "tokens"}
        assert others == {(bits, 8)}
    assert {p.weight_bits for p in made.decode(seeds[-1][1]).layers.values()} <= {32}
