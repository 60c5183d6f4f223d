"""Learnt look-ups: exact on what they saw, silent on what they did not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autocompress.hardware.influence import FeatureLookup, GeneLookup, Ints

SIZES = np.array([3, 4, 2, 5])


def truth(columns: Ints) -> Ints:
    """Depends on gene 1 (options 2 and 3 are alike) and gene 3."""
    return np.asarray(np.minimum(columns[1], 2) * 10 + columns[3])


@given(st.integers(0, 1000))
def test_genes_that_matter_answer_for_the_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lookup = GeneLookup(SIZES)
    lookup.observe(1, [0, 1, 2, 2])
    lookup.observe(3, [0, 1, 2, 3, 4])
    assert lookup.genes == (1, 3)
    known = rng.integers(0, SIZES[:, None], (4, 60))
    assert lookup.learn(known, truth(known)) is None
    asked = rng.integers(0, SIZES[:, None], (4, 60))
    found = lookup.find(lookup.codes(asked))
    assert ((found == truth(asked)) | (found == -1)).all()
    assert (lookup.find(lookup.codes(known)) == truth(known)).all()


def test_an_overlooked_gene_shows_as_a_clash() -> None:
    lookup = GeneLookup(SIZES)
    lookup.observe(1, [0, 1, 2, 2])
    columns = np.array([[0, 0], [1, 1], [0, 0], [0, 4]])
    assert lookup.learn(columns, np.array([1, 2])) == (0, 1)
    assert lookup.separate(3)
    assert not lookup.separate(3)
    assert lookup.learn(columns, np.array([1, 2])) is None
    assert not lookup.extend(columns[:, :1], np.array([9]))
    assert lookup.extend(np.array([[0], [3], [0], [0]]), np.array([7]))


def test_features_join_in_and_idle_ones_leave() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 4, (5, 300))
    payloads = matrix[0] * 4 + matrix[2]
    lookup = FeatureLookup([0])
    assert lookup.learn(matrix, payloads) is not None
    lookup.features += [1, 2, 4]
    assert lookup.learn(matrix, payloads) is None
    lookup.thin_out(matrix, payloads)
    assert lookup.features == [0, 2]
    assert (lookup.find(lookup.codes(matrix)) == payloads).all()
    strange = matrix[:, :1].copy()
    strange[2] = 9
    assert lookup.find(lookup.codes(strange))[0] == -1


def test_before_anything_is_learnt() -> None:
    lookup = FeatureLookup([0, 1])
    assert (lookup.find(lookup.codes(np.zeros((2, 3), dtype=np.int64))) == -1).all()


def test_many_features_are_hashed() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, 100, (20, 50))
    payloads = np.arange(50)
    lookup = FeatureLookup(range(20))
    assert lookup.learn(matrix, payloads) is None
    assert (lookup.find(lookup.codes(matrix)) == payloads).all()
