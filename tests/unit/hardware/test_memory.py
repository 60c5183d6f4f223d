"""Peak activation memory."""

from __future__ import annotations

from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.memory import peak_memory_bytes, tensor_bytes
from tests.unit.hardware.helpers import TinySpace


def ops(*shapes: tuple[str, str, tuple[str, ...], tuple[int, ...]]) -> list[Op]:
    return [Op(name, kind, inputs, shape) for name, kind, inputs, shape in shapes]


def test_a_chain_holds_two_tensors() -> None:
    chain = ops(
        ("x", "input", (), (1, 10)),
        ("a", "linear", ("x",), (1, 30)),
        ("b", "linear", ("a",), (1, 20)),
        ("y", "output", ("b",), (1, 20)),
    )
    assert peak_memory_bytes(chain, frozenset()) == 4 * (30 + 20)


def test_a_residual_stays_alive() -> None:
    branch = ops(
        ("x", "input", (), (1, 10)),
        ("a", "linear", ("x",), (1, 30)),
        ("b", "linear", ("a",), (1, 10)),
        ("s", "add", ("b", "x"), (1, 10)),
        ("y", "output", ("s",), (1, 10)),
    )
    assert peak_memory_bytes(branch, frozenset()) == 4 * (10 + 30 + 10)


def test_activations_and_views_take_no_memory_of_their_own() -> None:
    plain = ops(
        ("x", "input", (), (1, 8)),
        ("a", "linear", ("x",), (1, 16)),
        ("r", "relu", ("a",), (1, 16)),
        ("f", "flatten", ("r",), (1, 16)),
        ("y", "output", ("f",), (1, 16)),
    )
    assert peak_memory_bytes(plain, frozenset()) == 4 * (8 + 16)


def test_integers_take_a_quarter() -> None:
    space = TinySpace()
    genome = space.original.copy()
    floats = space.operations(genome)
    genome[5:] = 1
    integers = space.operations(genome)
    quantized = quantized_tensors(integers)
    assert tensor_bytes(integers[1], quantized | {integers[1].name}) == 32 * 64
    ratio = peak_memory_bytes(floats, frozenset()) / peak_memory_bytes(integers, quantized)
    assert 3.5 < ratio <= 4.0
