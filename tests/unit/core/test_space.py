"""Genomes: canonical forms, conditions, validation; on a small space of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.candidate import Candidate, LayerPolicy, Scalar
from autocompress.core.space import Choice, Condition, Genome, SearchSpace
from autocompress.errors import RequestError

CHOICES = (
    Choice("depth:stage", (2, 1, 0), "architecture"),
    Choice(
        "branch:b", ("dense", "separable"), "architecture", False, Condition("depth:stage", (2,))
    ),
    Choice("kernel:s", (5, 3), "architecture", True, Condition("branch:b", ("separable",))),
    Choice("rank:a", (None, 8, 4), condition=Condition("depth:stage", (2, 1))),
    Choice("width:c", (16, 8)),
)
GENOMES = st.tuples(*(st.integers(0, len(c.options) - 1) for c in CHOICES)).map(
    lambda genes: np.array(genes, dtype=np.int64)
)


class Small(SearchSpace):
    """Architecture genes by name, rank and width genes as policies."""

    @property
    def name(self) -> str:
        return "small"

    @property
    def choices(self) -> Sequence[Choice]:
        return CHOICES

    def decode(self, genome: Genome) -> Candidate:
        genome = self.canonical(genome)
        architecture: dict[str, Scalar] = {}
        layers: dict[str, LayerPolicy] = {}
        for choice, gene, on in zip(CHOICES, genome, self.active(genome), strict=True):
            value = choice.options[int(gene)]
            kind, _, layer = choice.name.partition(":")
            if on and choice.kind == "architecture" and value is not None:
                architecture[choice.name] = value
            elif on and value is not None:
                layers[layer] = (
                    LayerPolicy(rank=int(value))
                    if kind == "rank"
                    else LayerPolicy(width=int(value))
                )
        return Candidate(architecture, layers)

    def encode(self, candidate: Candidate) -> Genome:
        genome = self.original
        for i, choice in enumerate(CHOICES):
            kind, _, layer = choice.name.partition(":")
            value = (
                candidate.architecture.get(choice.name, choice.options[0])
                if choice.kind == "architecture"
                else getattr(candidate.policy(layer), kind)
            )
            genome[i] = choice.options.index(value) if value in choice.options else 0
        return self.canonical(genome)

    def build(self, candidate: Candidate) -> Any:
        raise NotImplementedError


SPACE = Small()


@settings(deadline=None)
@given(GENOMES)
def test_encode_inverts_decode(genome: Genome) -> None:
    assert np.array_equal(SPACE.encode(SPACE.decode(genome)), SPACE.canonical(genome))


@settings(deadline=None)
@given(GENOMES)
def test_canonical_is_idempotent_and_decodes_alike(genome: Genome) -> None:
    canonical = SPACE.canonical(genome)
    assert np.array_equal(SPACE.canonical(canonical), canonical)
    assert SPACE.decode(canonical) == SPACE.decode(genome)


@settings(deadline=None)
@given(GENOMES, GENOMES)
def test_equal_canonical_genomes_are_equal_candidates(first: Genome, second: Genome) -> None:
    same = np.array_equal(SPACE.canonical(first), SPACE.canonical(second))
    assert (SPACE.decode(first) == SPACE.decode(second)) is same


@settings(deadline=None)
@given(GENOMES)
def test_inactive_genes_hold_option_zero(genome: Genome) -> None:
    canonical = SPACE.canonical(genome)
    assert not canonical[~SPACE.active(canonical)].any()


@pytest.mark.parametrize(
    ("genome", "active"),
    [
        ([0, 1, 0, 0, 0], [True, True, True, True, True]),
        ([0, 0, 0, 0, 0], [True, True, False, True, True]),
        ([1, 1, 0, 0, 0], [True, False, False, True, True]),
        ([2, 1, 1, 2, 1], [True, False, False, False, True]),
    ],
    ids=["all", "other branch", "condition of a condition", "no stage"],
)
def test_conditions(genome: list[int], active: list[bool]) -> None:
    assert SPACE.active(np.array(genome)).tolist() == active


def test_samples_are_canonical_valid_and_reproducible() -> None:
    first = [SPACE.sample(np.random.default_rng(7)).tolist() for _ in range(2)]
    assert first[0] == first[1]
    rng = np.random.default_rng(0)
    seen = {tuple(SPACE.sample(rng).tolist()) for _ in range(400)}
    for genome in seen:
        assert np.array_equal(SPACE.canonical(np.array(genome)), genome)
    assert {g[0] for g in seen} == {0, 1, 2}


def test_input_is_not_changed() -> None:
    genome = np.array([2, 1, 1, 2, 1])
    SPACE.canonical(genome)
    assert genome.tolist() == [2, 1, 1, 2, 1]


def test_sizes_and_values() -> None:
    assert SPACE.sizes.tolist() == [3, 2, 2, 3, 2]
    assert SPACE.log10_size == pytest.approx(np.log10(72))


def test_candidates_are_counted_without_those_that_are_the_same() -> None:
    every = [SPACE.decode(np.array(g)) for g in itertools.product(*(range(n) for n in SPACE.sizes))]
    assert SPACE.count() == len({candidate.hash for candidate in every})
    kinds = {tuple(candidate.architecture.items()) for candidate in every}
    assert SPACE.count(lambda choice: choice.kind == "architecture") == len(kinds)
    assert SPACE.count(lambda choice: False) == 1
    assert SPACE.value(np.array([1, 0, 0, 2, 1]), "rank:a") == 4
    assert SPACE.original.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("genome", "shown"),
    [
        ([0, 0, 0, 0], r"shape \(4,\)"),
        ([[0] * 5], r"shape \(1, 5\)"),
        ([3, 0, 0, 0, 0], r"'depth:stage' is 3.*0\.\.2"),
        ([0, 0, 0, -1, 0], "'rank:a' is -1"),
    ],
    ids=["short", "nested", "large", "negative"],
)
def test_bad_genomes(genome: Any, shown: str) -> None:
    with pytest.raises(RequestError, match=shown):
        SPACE.check(np.array(genome))


def test_bad_choices() -> None:
    with pytest.raises(RequestError, match="'width:a' has no options"):
        Choice("width:a", ())
    with pytest.raises(RequestError, match=r"'width:a' repeats an option: \(8, 4, 8\)"):
        Choice("width:a", (8, 4, 8))
