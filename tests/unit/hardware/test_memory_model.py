"""Arenas, alignment and in-place rules."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.objective import Constraint
from autocompress.errors import ProfileError
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.arena import greedy_arena, greedy_offsets
from autocompress.hardware.limits import Limits
from autocompress.hardware.memory import peak_memory_bytes
from autocompress.hardware.memory_model import MemoryModel
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from tests.unit.hardware.helpers import TinySpace, profile

#: Bytes, first and last step of a block.
Block = tuple[int, int, int]
BLOCKS = st.lists(
    st.tuples(st.integers(0, 64), st.integers(0, 8), st.integers(0, 4)).map(
        lambda b: (b[0], b[1], b[1] + b[2])
    ),
    max_size=9,
)
ARENA = MemoryModel("flash", "greedy_by_size", 16, (), 100, 8)


def overlap(a: Block, b: Block) -> bool:
    return a[1] <= b[2] and b[1] <= a[2]


def one_by_one(blocks: list[Block], order: list[int]) -> dict[int, int]:
    """First fit as it is told in words: try the start, and the end of each block in the way."""
    placed: dict[int, int] = {}
    for i in order:
        rivals = [j for j in placed if overlap(blocks[i], blocks[j])]
        starts = sorted({0, *(placed[j] + blocks[j][0] for j in rivals)})
        placed[i] = next(
            s
            for s in starts
            if all(
                s + blocks[i][0] <= placed[j] or s >= placed[j] + blocks[j][0]
                for j in rivals
                if blocks[i][0] and blocks[j][0]
            )
        )
    return placed


def arrays(blocks: list[Block]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size, first, last = np.array(blocks, dtype=np.int64).reshape(-1, 3).T[:, None, :]
    return size, first, last


@given(BLOCKS)
def test_offsets_are_those_of_first_fit_by_size(blocks: list[Block]) -> None:
    order = sorted(range(len(blocks)), key=lambda i: -blocks[i][0])
    expected = one_by_one(blocks, order)
    found = greedy_offsets(*arrays(blocks))[0]
    for i, block in enumerate(blocks):
        if block[0]:
            assert found[i] == expected[i]


@given(BLOCKS)
def test_no_two_live_blocks_overlap(blocks: list[Block]) -> None:
    found = greedy_offsets(*arrays(blocks))[0]
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks[:i]):
            if overlap(a, b) and a[0] and b[0]:
                assert found[i] + a[0] <= found[j] or found[j] + b[0] <= found[i]


@settings(max_examples=40)
@given(BLOCKS.filter(lambda blocks: 0 < len(blocks) <= 5))
def test_an_arena_lies_between_what_is_live_and_twice_the_best(blocks: list[Block]) -> None:
    """Some order of first fit is optimal for so few blocks; liveness is a bound from below."""
    size, first, last = arrays(blocks)
    arena = int(greedy_arena(size, first, last)[0])
    live = int(MemoryModel().peaks(size.T, first.T, last.T)[0])
    best = min(
        max(offset + blocks[i][0] for i, offset in one_by_one(blocks, list(order)).items())
        for order in permutations(range(len(blocks)))
    )
    assert live <= best <= arena <= 2 * best


def test_the_arena_of_many_candidates_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 50, (64, 12))
    first = rng.integers(0, 10, (64, 12))
    last = first + rng.integers(0, 5, (64, 12))
    together = greedy_arena(sizes, first, last)
    for i, bytes_ in enumerate(together):
        alone = greedy_arena(sizes[i : i + 1], first[i : i + 1], last[i : i + 1])
        assert bytes_ == alone[0]


def chain(*kinds: str) -> list[Op]:
    ops = [Op("x", "input", (), (1, 10))]
    for i, kind in enumerate(kinds):
        ops.append(Op(f"{kind}{i}", kind, (ops[-1].name,), (1, 10)))
    return [*ops, Op("y", "output", (ops[-1].name,), (1, 10))]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param((), 80, id="nothing"),
        pytest.param(("view",), 80, id="views"),
        pytest.param(("view", "activation"), 40, id="activations-too"),
    ],
)
def test_rules_decide_what_shares_memory(rules: tuple[str, ...], expected: int) -> None:
    assert peak_memory_bytes(chain("flatten", "sigmoid", "reshape"), (), rules) == expected


def test_a_fused_activation_never_needs_memory() -> None:
    assert peak_memory_bytes(chain("linear", "relu"), (), ()) == 80
    assert peak_memory_bytes(chain("linear", "sigmoid"), (), ()) == 80
    assert len(MemoryModel(in_place=()).in_place) == 0
    blocks = MemoryModel("ram", "liveness", 1, (), 0, 1000)
    assert blocks.peak_bytes(chain("linear", "relu"), ()) == 2080
    assert blocks.peak_bytes(chain("linear", "sigmoid"), ()) == 3080


def test_a_sum_may_be_written_over_the_input_that_nobody_else_reads() -> None:
    ops = [
        Op("x", "input", (), (1, 10)),
        Op("a", "linear", ("x",), (1, 10)),
        Op("b", "linear", ("a",), (1, 10)),
        Op("s", "add", ("a", "b"), (1, 10)),
        Op("y", "output", ("s",), (1, 10)),
    ]
    assert peak_memory_bytes(ops, (), ("view",)) == 120
    assert peak_memory_bytes(ops, (), ("view", "add")) == 80


def test_alignment_and_overhead() -> None:
    ops = chain("linear")  # two blocks of 40 bytes, 48 when aligned
    assert ARENA.peak_bytes(ops, ()) == 96 + 100 + 2 * 8
    assert ARENA.ram_bytes(212, 1000) == 212
    assert MemoryModel().ram_bytes(80, 1000) == 1080


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(ARENA, id="arena"),
        pytest.param(MemoryModel(in_place=()), id="nothing-in-place"),
        pytest.param(MemoryModel(in_place=("view", "activation", "add"), alignment=64), id="all"),
        pytest.param(MemoryModel(in_place=("add",)), id="sums"),
    ],
)
def test_many_candidates_need_what_each_needs(model: MemoryModel) -> None:
    space = TinySpace()
    predictor = LatencyPredictor(profile(memory=model))
    pricer = CandidatePricer(space, predictor, operations=space.operations)
    genomes = space.random(150, seed=4)
    peaks = pricer.arrays(genomes)["peak_memory_bytes"]
    for genome, peak in zip(genomes, peaks, strict=True):
        ops = space.operations(genome)
        assert peak == model.peak_bytes(ops, quantized_tensors(ops))


def test_to_toml_is_the_inverse() -> None:
    assert MemoryModel.from_toml(ARENA.to_toml()) == ARENA
    limits = Limits(ram_bytes=5, flash_bytes=7)
    assert limits.bounds == (Constraint("peak_memory_bytes", 5), Constraint("size_bytes", 7))
    assert Limits().bounds == ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({"weights_in": "rom"}, "one of ram, flash", id="weights"),
        pytest.param({"planner": "magic"}, "one of liveness, greedy", id="planner"),
        pytest.param({"alignment": 0}, "alignment is 0", id="alignment"),
        pytest.param({"in_place": ["conv"]}, "a list out of view", id="in-place"),
        pytest.param({"pages": 1}, "'pages', which is not understood", id="unknown"),
    ],
)
def test_refused(value: dict[str, object], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        MemoryModel.from_toml(value)
