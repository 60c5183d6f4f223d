"""Slots stand in an order in which every candidate may be executed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from autocompress.core.space import Genome
from autocompress.graph.ops import Op
from autocompress.hardware.slots import Operations, Slots


def _chain(*names: str) -> list[Op]:
    shape = (1, 4, 8, 8)
    inputs = [(), *((name,) for name in names)]
    return [Op(n, "relu", i, shape) for n, i in zip(names, inputs, strict=False)]


def _slots(sizes: list[int], operations: Operations) -> Slots:
    rng = np.random.default_rng(0)
    return Slots(np.array(sizes), operations, rng, counted=lambda op: op)


def _optional(genome: Genome) -> list[Op]:
    """Each gene adds an operation between two that are always there."""
    between = [name for name, there in zip(("a", "b", "c"), genome, strict=True) if there]
    return _chain("x", *between, "y")


def test_operations_that_first_meet_late() -> None:
    """Alone, each comes directly behind the input: only together they say which comes first."""
    slots = _slots([2, 2, 2], _optional)
    every = [np.array(options) for options in product((0, 1), repeat=3)]
    for genome in sorted(every, key=sum):
        slots.check(genome[None])
    chosen = slots.forms(np.stack(every, axis=1))
    assert list(slots.slots) == ["x", "a", "b", "c", "y"]
    assert [slot.place for slot in slots.slots.values()] == [0, 1, 2, 3, 4]
    for genome, forms in zip(every, chosen.T, strict=True):
        assert slots.ops_of(forms) == _optional(genome)


def test_slots_that_move_are_another_generation() -> None:
    slots = _slots([2, 2, 2], _optional)
    for genome in ([0, 0, 0], [1, 0, 0], [0, 1, 0]):
        slots.check(np.array([genome]))
    assert list(slots.slots) == ["x", "b", "a", "y"]
    before = slots.generation
    assert not slots.check(np.array([[1, 1, 0]]))
    assert list(slots.slots) == ["x", "a", "b", "y"]
    assert slots.generation == before + 1


def test_candidates_without_a_common_order() -> None:
    slots = _slots([2], lambda genome: _chain("x", *(("b", "a") if genome[0] else ("a", "b")), "y"))
    slots.check(np.array([[0]]))
    with pytest.raises(RuntimeError, match="candidates execute a, b, y in different orders"):
        slots.check(np.array([[1]]))
