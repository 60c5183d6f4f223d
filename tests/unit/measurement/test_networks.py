"""Reference networks are what they say, and always the same."""

from __future__ import annotations

import pytest

from autocompress.measurement.networks import PRECISIONS, reference_networks


def test_they_are_reproducible_and_different() -> None:
    first, again = reference_networks(8, seed=4), reference_networks(8, seed=4)
    assert first == again
    assert len({network.ops for network in first}) == 8
    names = {n.name for seed in (4, 5) for n in reference_networks(8, seed=seed)}
    assert len(names) == 16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_that_of_the_layers(precision: str) -> None:
    for network in reference_networks(12, seed=6):
        if precision in network.name:
            integer = {op.is_integer_layer for op in network.ops if op.layer is not None}
            assert precision == "mixed" or integer == {precision == "int8"}


def test_operations_are_wired_in_order() -> None:
    for network in reference_networks(6, seed=7):
        seen: set[str] = set()
        for op in network.ops:
            assert seen.issuperset(op.inputs)
            seen.add(op.name)
        assert network.ops[-1].kind == "output"
