"""Drawn candidates reach from the largest to the smallest."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.registry import make_techniques
from autocompress.core.space import Genome
from autocompress.elastic.drawing import draw
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from tests.unit.networks import EVERYTHING

NAMES = ("tiny_cnn", "resnet", "mobile_cnn")


@cache
def space(name: str) -> ElasticSpace:
    return load_space(
        name, input_shape=(3, 32, 32), num_classes=10, techniques=make_techniques(None),
        capabilities=EVERYTHING,
    )  # fmt: skip


@cache
def drawn(name: str, count: int = 200, reach: float = 1.0) -> list[Genome]:
    rng = np.random.default_rng(0)
    return [draw(space(name), rng, reach=reach) for _ in range(count)]


def macs(name: str, genomes: list[Genome]) -> list[float]:
    def of(genome: Genome) -> float:
        operations = space(name).graph.operations(space(name).decode(genome))
        return float(sum(op.macs for op in operations))

    whole = of(space(name).original)
    return [of(genome) / whole for genome in genomes]


@pytest.mark.parametrize("name", NAMES)
def test_costs_are_spread_evenly(name: str) -> None:
    """Unlike uniformly drawn ones, which are nearly all small."""
    found = np.array(macs(name, drawn(name)))
    rng = np.random.default_rng(0)
    uniform = np.array(macs(name, [space(name).sample(rng) for _ in range(200)]))
    for low, high in ((0.5, 1.01), (0.2, 0.5), (0.0, 0.2)):
        assert 0.1 < ((low <= found) & (found < high)).mean() < 0.65, (low, high)
    assert np.log(found).std() > 1.2 * np.log(uniform).std()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_drawn(name: str) -> None:
    seen = np.array(drawn(name, 1500))
    for i, choice in enumerate(space(name).choices):
        expected = 1 if choice.kind == "recipe" else len(choice.options)
        assert len(set(seen[:, i])) == expected, choice


@pytest.mark.parametrize("name", NAMES)
def test_families_of_genes_are_drawn_by_themselves(name: str) -> None:
    """Candidates have one family changed without another that it does not depend on."""
    families = sorted({c.name.partition(":")[0] for c in space(name).choices if c.kind != "recipe"})
    genomes = np.array(drawn(name, 1500))
    columns = {
        family: [i for i, c in enumerate(space(name).choices) if c.name.startswith(family + ":")]
        for family in families
    }
    changed = {family: genomes[:, columns[family]].any(axis=1) for family in families}
    depends = {
        (c.name.partition(":")[0], c.condition.name.partition(":")[0])
        for c in space(name).choices
        if c.condition is not None
    }
    for one, other in itertools.permutations(families, 2):
        if (one, other) not in depends:
            assert (changed[one] & ~changed[other]).mean() > 0.01, (one, other)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), reach=st.floats(0, 1))
def test_drawn_genomes_are_canonical_and_repeat(seed: int, reach: float) -> None:
    chosen = space("tiny_cnn")
    first = draw(chosen, np.random.default_rng(seed), reach=reach)
    assert np.array_equal(first, chosen.canonical(first))
    assert np.array_equal(first, draw(chosen, np.random.default_rng(seed), reach=reach))


def test_reach() -> None:
    assert not np.array(drawn("resnet", 50, 0.0)).any()
    assert np.mean(macs("resnet", drawn("resnet", 100, 0.25))) > 1.5 * np.mean(
        macs("resnet", drawn("resnet", 100))
    )
