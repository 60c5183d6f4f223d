"""Which tensors are uint8, as a table of small graphs."""

from __future__ import annotations

import pytest

from autocompress.graph.ops import Op
from autocompress.graph.precision import fused_tails, quantized_tensors, tensor_bits


def _graph(text: str) -> list[Op]:
    """Operations from lines such as ``b conv8 a``: name, kind, inputs; conv8 is an int8 layer."""
    ops = []
    for line in text.strip().splitlines():
        name, kind, *inputs = line.split()
        bits = 8 if kind.endswith("8") else 32
        shape = (4, 4, 1, 1) if kind.startswith("conv") else ()
        ops.append(
            Op(
                name, kind.removesuffix("8"), tuple(inputs), (1, 4, 2, 2), weight_shape=shape,
                weight_bits=bits, activation_bits=bits,
            )
        )  # fmt: skip
    return ops


CASES = {
    "float": ("x input\na conv x\no output a", ""),
    "one layer: its output is the model's": ("x input\na conv8 x\no output a", "x a"),
    "a linear layer at the end stays float": ("x input\na conv8 x\nb linear8 a\no output b", "x a"),
    "two layers": ("x input\na conv8 x\nb conv8 a\no output b", "x a b"),
    "int8 then float": ("x input\na conv8 x\nb conv a\no output b", "x a"),
    "float then int8": ("x input\na conv x\nb conv8 a\no output b", "a b"),
    "relu runs in the layer": (
        "x input\na conv8 x\nr relu a\nb conv8 r\no output b",
        "x r b",
    ),
    "relu of a convolution at the end": ("x input\na conv8 x\nr relu a\no output r", "x r"),
    "relu that is not the only reader": (
        "x input\na conv8 x\nr relu a\nb conv8 r\ns add a r\nt add b s\no output t",
        "x a r b s",
    ),
    "sigmoid is not fused": (
        "x input\na conv8 x\nr sigmoid a\nb conv8 r\no output b",
        "x a r b",
    ),
    "pooling passes the scale on": (
        "x input\na conv8 x\nr relu a\np max_pool r\nb conv8 p\no output b",
        "x r p b",
    ),
    "a layer behind pooling of a float": (
        "x input\np max_pool x\nf flatten p\nb conv8 f\no output b",
        "x p f b",
    ),
    "pooling of a float stays float": (
        "x input\na conv x\np max_pool a\nb conv p\no output b",
        "",
    ),
    "sum of two integers, with its relu": (
        "x input\na conv8 x\nb conv8 x\ns add a b\nr relu s\nc conv8 r\no output c",
        "x a b r c",
    ),
    "sum of an integer and a float": (
        "x input\na conv8 x\nb conv x\ns add a b\nc conv s\no output c",
        "x a",
    ),
    "sum of itself": ("x input\na conv8 x\ns add a a\nc conv s\no output c", "x a s"),
    "sum of a float and a number": ("x input\na conv x\ns add a\nc conv s\no output c", ""),
    "concatenation": (
        "x input\na conv8 x\nb conv8 x\ns concat a b\nc conv s\no output c",
        "x a b s",
    ),
    "average and flatten before the classifier": (
        "x input\na conv8 x\ng global_avg_pool a\nf flatten g\nc conv f\no output c",
        "x a g f",
    ),
    "sum at the end stays float": ("x input\na conv8 x\ns add a x\no output s", "x a"),
    "multiplication has no integer form": (
        "x input\na conv8 x\nb conv8 x\ns mul a b\nc conv s\no output c",
        "x a b",
    ),
    "a chain of sums": (
        "x input\na conv8 x\ns add a x\nt add s a\nu add t s\nc conv u\no output c",
        "x a s t u",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_quantized_tensors(name: str) -> None:
    text, expected = CASES[name]
    assert quantized_tensors(_graph(text)) == frozenset(expected.split())


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "expected"),
    [(8, 8, {"x"}), (4, 8, {"x"}), (2, 8, {"x"}), (4, 32, set()), (32, 32, set())],
)
def test_only_integer_layers_count(
    weight_bits: int, activation_bits: int, expected: set[str]
) -> None:
    ops = [
        Op("x", "input", (), (1, 4)),
        Op("a", "linear", ("x",), (1, 4), weight_shape=(4, 4), weight_bits=weight_bits,
           activation_bits=activation_bits),
        Op("o", "output", ("a",), (1, 4)),
    ]  # fmt: skip
    assert quantized_tensors(ops) == expected


@pytest.mark.parametrize(
    ("tail", "fused"),
    [("relu", True), ("relu6", True), ("hardtanh", True), ("sigmoid", False), ("gelu", False)],
)
@pytest.mark.parametrize(
    ("kind", "has_tail"),
    [("conv", True), ("linear", True), ("add", True), ("max_pool", False), ("mul", False)],
)
def test_fused_tails(kind: str, has_tail: bool, tail: str, fused: bool) -> None:
    ops = _graph(f"x input\na {kind} x\nr {tail} a\no output r")
    assert fused_tails(ops)["a"] == ("r" if fused and has_tail else "a")


def test_nothing_is_quantised_in_an_empty_graph() -> None:
    assert quantized_tensors([]) == frozenset()


def layer(name: str, source: str, bits: int) -> Op:
    return Op(
        name, "conv", (source,), (1, 8, 4, 4), layer=name, weight_bits=8, activation_bits=bits
    )


def test_a_tensor_has_the_fewest_bits_of_who_writes_and_who_reads_it() -> None:
    shape = (1, 8, 4, 4)
    ops = [
        Op("x", "input", (), shape),
        layer("a", "x", 6),
        Op("relu", "relu", ("a",), shape),
        Op("pool", "max_pool", ("relu",), shape),
        layer("b", "pool", 8),
        layer("c", "relu", 4),
        Op("sum", "add", ("b", "c"), shape),
        layer("d", "sum", 8),
        Op("again", "add", ("sum", "d"), shape),
        Op("tail", "relu", ("again",), shape),
        Op("mean", "global_avg_pool", ("tail",), shape),
        Op("e", "linear", ("mean",), (1, 4), layer="e", weight_bits=8, activation_bits=32),
        Op("output", "output", ("e",), (1, 4)),
    ]
    found = tensor_bits(ops)
    assert found.keys() == quantized_tensors(ops)
    assert found["x"] == 6
    assert found["relu"] == found["pool"] == 4  # one tensor, whose narrowest reader has 4
    assert (found["b"], found["c"]) == (8, 4)
    assert found["sum"] == 8  # its reader's
    assert found["tail"] == found["mean"] == 8  # as the widest input


def test_nobody_is_given_more_bits_than_asked_for() -> None:
    shape = (1, 8, 4, 4)
    ops = [
        Op("x", "input", (), shape), layer("a", "x", 4), layer("b", "x", 4),
        Op("sum", "add", ("a", "b"), shape), Op("pool", "avg_pool", ("sum",), shape),
        layer("c", "pool", 4), Op("output", "output", ("c",), shape),
    ]  # fmt: skip
    assert set(tensor_bits(ops).values()) == {4}
