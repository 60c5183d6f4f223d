"""The array form of the rules says what the rules say."""

from __future__ import annotations

import numpy as np

from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.memory import peak_memory_bytes
from autocompress.hardware.wiring import Wiring, flags_of
from tests.unit.hardware.helpers import TinySpace


def test_quantised_tensors_and_memory_of_many_candidates() -> None:
    space = TinySpace()
    candidates = [space.operations(genome) for genome in space.random(200, seed=5)]
    order = [op.name for op in max(candidates, key=len)]
    names = list(dict.fromkeys([*order, *(op.name for ops in candidates for op in ops)]))
    names.sort(key=lambda name: (name == "y", 0))
    longest = [name for name in names if name != "b_reduce"]
    if "b_reduce" in names:
        longest.insert(longest.index("b"), "b_reduce")
    places = {name: place for place, name in enumerate(longest)}
    forms: list[dict[Op | None, None]] = [{None: None} for _ in longest]
    for ops in candidates:
        for op in ops:
            forms[places[op.name]].setdefault(op)
    flags = [flags_of(list(form), places) for form in forms]
    chosen = np.zeros((len(longest), len(candidates)), dtype=np.int64)
    for column, ops in enumerate(candidates):
        for op in ops:
            chosen[places[op.name], column] = list(forms[places[op.name]]).index(op)
    wiring = Wiring(flags, chosen)
    quantized = wiring.quantized()
    peaks = wiring.peak_memory(quantized)
    for column, ops in enumerate(candidates):
        expected = quantized_tensors(ops)
        found = {name for name, place in places.items() if quantized[place, column]}
        assert found == expected
        assert peaks[column] == peak_memory_bytes(ops, expected)
