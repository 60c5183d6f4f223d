"""What a model overwrites without looking at its input is computed once, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional as F

from autocompress.errors import CaptureError
from autocompress.graph.capture import trace
from tests.unit.networks import randomise
from tests.unit.windowed_networks import VERSIONS, images, tiny_swin

SIZE = 6
Forward: TypeAlias = Callable[[Any, torch.Tensor], torch.Tensor]


class Written(nn.Module):
    """Linear layers beside something that is written into a tensor; ``(n, 6)`` to ``(n, 6)``."""

    def __init__(self, then: Forward) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE)
        self.free = nn.Parameter(torch.randn(SIZE))
        self.register_buffer("held", torch.randn(SIZE))
        self.then = then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        out: torch.Tensor = self.last(self.then(self, x))
        return out


def _rows(batch: int) -> torch.Tensor:
    return torch.randn(batch, SIZE, generator=torch.Generator().manual_seed(batch))


def _captured(then: Forward) -> tuple[nn.Module, fx.GraphModule]:
    torch.manual_seed(0)
    model = randomise(Written(then))
    return model, trace(model, (_rows(2),))


def _calls(captured: fx.GraphModule) -> list[str]:
    return [str(n.target) for n in captured.graph.nodes if n.op == "call_function"]


def _mask(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = x.new_zeros(SIZE)
    mask[:2] = 3.0
    mask[-1] = 0.5
    return x + mask.masked_fill(mask == 0, -1.0)


def _of_time(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(SIZE)
    x = x + mask
    mask[1:3] = 2.0
    x = x * (mask + 1.0)
    mask.view(2, 3)[:, 0] = -1.0
    return x + mask


def _alike(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.ones_like(m.held)
    mask[::2] *= 4.0
    return x * mask


def _pieces(m: Any, x: torch.Tensor) -> torch.Tensor:
    left, right = torch.arange(float(SIZE)).chunk(2)
    left += right
    return x + torch.cat([right, left])


def _of_a_buffer(m: Any, x: torch.Tensor) -> torch.Tensor:
    held = m.held.clone()
    held[2:4] = held[:2] * 2.0
    out: torch.Tensor = x * held
    return out


def _swapped(m: Any, x: torch.Tensor) -> torch.Tensor:
    table = torch.tensor([5, 4, 3, 2, 1, 0])
    table[:2] = table[1:3].clone()
    out: torch.Tensor = x[:, table]
    return out


@pytest.mark.parametrize(
    "then", [_mask, _of_time, _alike, _pieces, _of_a_buffer, _swapped], ids=lambda f: f.__name__
)
def test_constants_are_folded(then: Forward) -> None:
    model, captured = _captured(then)
    for batch in (1, 2, 3, 7):
        assert torch.equal(captured(_rows(batch)), model(_rows(batch)))
    calls = _calls(captured)
    assert not any("_." in name or "masked_fill" in name for name in calls), calls
    held = dict(captured.named_buffers())
    assert all(isinstance(value, torch.Tensor) for value in held.values())
    assert not [name for name, _ in captured.named_parameters() if "constants" in name]


def test_each_reader_gets_the_values_of_its_time() -> None:
    _, captured = _captured(_of_time)
    held = {name: value.tolist() for name, value in captured.named_buffers()}
    assert sorted(held.values()) == sorted(
        [[0.0] * 6, [1.0, 3.0, 3.0, 1.0, 1.0, 1.0], [-1.0, 2.0, 2.0, -1.0, 0.0, 0.0]]
    )


def test_equal_constants_are_one() -> None:
    _, captured = _captured(lambda m, x: _mask(m, torch.tanh(_mask(m, x))))
    assert len(dict(captured.named_buffers())) == 1


def _of_a_parameter(m: Any, x: torch.Tensor) -> torch.Tensor:
    bias = m.free.clone()
    bias[2:4].zero_()
    return F.linear(x, m.first.weight, bias)


def test_a_bias_with_a_part_set_to_zero_is_a_layers_own() -> None:
    """As in the second version of the Swin transformer, whose keys have no bias."""
    model, captured = _captured(_of_a_parameter)
    for batch in (1, 2, 5):
        assert torch.equal(captured(_rows(batch)), model(_rows(batch)))
    assert _calls(captured) == ["aten.relu.default"]
    biased = captured.get_submodule("first_again")
    assert isinstance(biased, nn.Linear)
    assert biased.bias[2:4].tolist() == [0.0, 0.0]
    assert isinstance(biased.bias, nn.Parameter)


def _of_the_input(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(SIZE)
    mask[:3] = x.mean()
    return x + mask


def _of_a_row(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(SIZE)
    before = mask + 1.0
    mask[:3] = 2.0
    mask[3:] = x[0, 3:]
    return x * before + mask


@pytest.mark.parametrize("then", [_of_the_input, _of_a_row], ids=lambda f: f.__name__)
def test_what_depends_on_the_input_is_refused_and_named(then: Forward) -> None:
    with pytest.raises(CaptureError, match=r"where the tensor depends on the inputs"):
        _captured(then)


def _in_the_batch(m: Any, x: torch.Tensor) -> torch.Tensor:
    mask = x.new_zeros(x.shape[0], SIZE)
    mask.add_(1.0)
    return x + mask


def _random(m: Any, x: torch.Tensor) -> torch.Tensor:
    noise = torch.rand(SIZE)
    noise += 1.0
    return x * 0.0 + noise.sign() * x


def test_sizes_of_the_batch_are_no_constants() -> None:
    model, captured = _captured(_in_the_batch)
    for batch in (1, 2, 6):
        assert torch.equal(captured(_rows(batch)), model(_rows(batch)))
    assert any("new_zeros" in name for name in _calls(captured))


def test_random_numbers_are_no_constants() -> None:
    _, captured = _captured(_random)
    assert any("rand" in name for name in _calls(captured))


def test_layers_of_parameters_stay_layers_of_the_graph() -> None:
    """What is trained is not frozen, though it is overwritten as a whole."""

    def then(m: Any, x: torch.Tensor) -> torch.Tensor:
        table: torch.Tensor = F.relu_(F.linear(m.held, m.first.weight))
        return x + table

    model, captured = _captured(then)
    assert torch.equal(captured(_rows(3)), model(_rows(3)))
    assert "aten.linear.default" in _calls(captured)
    assert "constants_first_weight" in dict(captured.named_parameters())


class _Counting(nn.Module):
    """Overwrites a buffer of its own in each pass."""

    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.head = nn.Linear(SIZE, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen[:1] += 1.0
        out: torch.Tensor = self.head(x)
        return out + 0.0 * self.seen


def test_a_buffer_that_the_model_overwrites_is_no_constant() -> None:
    captured = trace(_Counting().eval(), (_rows(2),))
    assert "constants_seen" in dict(captured.named_buffers())


@settings(max_examples=25, deadline=None)
@given(
    writes=st.lists(
        st.tuples(
            st.integers(0, SIZE - 1),
            st.integers(1, SIZE),
            st.sampled_from(["fill", "add", "mul", "read"]),
            st.integers(-3, 3),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_sequence_of_writes(writes: list[tuple[int, int, str, int]]) -> None:
    def then(m: Any, x: torch.Tensor) -> torch.Tensor:
        held = m.held.clone()
        for start, length, kind, number in writes:
            part = held[start : start + length]
            if kind == "fill":
                part.fill_(float(number))
            elif kind == "add":
                part += number
            elif kind == "mul":
                part *= number
            else:
                x = x + held
        out: torch.Tensor = x * held
        return out

    model, captured = _captured(then)
    assert torch.equal(captured(_rows(3)), model(_rows(3)))


@pytest.mark.parametrize("version", VERSIONS)
def test_shifted_windows(version: str) -> None:
    model = tiny_swin(version)
    captured = trace(model, (images(),))
    for batch in (1, 2, 3, 5):
        with torch.no_grad():
            expected, found = model(images(batch)), captured(images(batch))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    masks = [value for value in captured.buffers() if (value == -100.0).any()]
    assert [tuple(mask.shape) for mask in masks] == [(1, 9, 1, 4, 4)]
    assert not any(
        name.startswith(("aten.fill_", "aten.new_zeros", "aten.masked_fill", "aten.expand_as"))
        for name in _calls(captured)
    )
