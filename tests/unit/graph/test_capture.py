"""A captured graph is the model, with the user's names; what cannot be captured is named."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional as F

from autocompress.errors import CaptureError
from autocompress.graph.capture import trace
from tests.unit.networks import (
    Concatenated,
    Flattened,
    MobileNet,
    Perceptron,
    ResNet,
    example,
    randomise,
)


class Functional(nn.Module):
    """Weights without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3))
        self.shift = nn.Parameter(torch.randn(6))
        self.mix_weight = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, self.weight, self.shift, stride=2, padding=1)
        return F.linear(F.relu(y).mean((2, 3)), self.mix_weight)


class InPlace(nn.Module):
    """The overwritten tensor is read again later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        z = F.relu_(y)
        y += 0.5
        y.mul_(2.0)
        return (y * z + y.sigmoid()).mean((2, 3))


class CalledTwice(nn.Module):
    """One layer with shared weights, at two places, before two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.bn2 = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv(self.stem(x))))
        out: torch.Tensor = self.bn2(self.conv(y))
        return out.mean((2, 3))


class OneWeightTwoBiases(nn.Module):
    """Two different layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.first = nn.Parameter(torch.randn(4))
        self.second = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(F.conv2d(x, self.weight, self.second))
        return (F.conv2d(x, self.weight, self.first) * gate).mean((2, 3))


class Tied(nn.Module):
    """Two linear layers with one weight and two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(F.relu(self.first(x[:, 0, 0])))
        return out


class SameNames(nn.Module):
    """A parameter whose name would give its layer the name of another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.conv_weight = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(self.conv(x), self.conv_weight, padding=1).mean((2, 3))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.embed = nn.Embedding(7, 4)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        pooled = F.relu(self.conv(image)).mean((2, 3))
        out: torch.Tensor = self.fc(torch.cat([pooled, self.embed(label)], 1))
        return out


class Dropouts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.drop = nn.Dropout2d(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(F.relu(self.conv(x))).mean((2, 3))
        out: torch.Tensor = self.fc(F.dropout(y, 0.3, self.training))
        return out


class Norms(nn.Module):
    """Norms that are no layer, or one without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.free = nn.BatchNorm2d(8, affine=False)
        self.own = nn.BatchNorm2d(8, track_running_stats=False)
        self.group = nn.GroupNorm(2, 8)
        self.plain = nn.GroupNorm(4, 8, affine=False)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.layer = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.group(self.instance(self.free(self.conv(x))))
        out: torch.Tensor = self.layer(self.plain(self.own(y)).mean((2, 3)))
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        z = self.norm(y)
        out: torch.Tensor = self.fc((y + self.attention(z, z, z)[0]).mean(1))
        return out


class SamePadding(nn.Module):
    """An even kernel pads more on one side than on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Conv2d(3, 4, 4, padding="same")
        self.odd = nn.Conv2d(4, 4, 3, padding="same", dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.odd(F.relu(self.even(x)))
        return out.mean((2, 3))


def _same(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    captured = trace(model, inputs)
    with torch.no_grad():
        expected, found = model(*inputs), captured(*inputs)
    assert float(expected.std()) > 1e-3
    assert torch.allclose(expected, found, atol=1e-5, rtol=1e-4)
    return captured


@pytest.mark.parametrize(
    "kind",
    [
        ResNet, MobileNet, Perceptron, Flattened, Concatenated, Functional, InPlace, CalledTwice,
        OneWeightTwoBiases, Tied, SameNames, Dropouts, Norms, Attention, SamePadding,
    ],
)  # fmt: skip
def test_equals_the_original(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = randomise(kind(48) if kind is Perceptron else kind())
    size = 4 if kind is Perceptron else 8
    _same(model, (example(size, batch=5),))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("mobilenet_v3_small", {}),
        ("squeezenet1_1", {}),
        ("DenseNet", {"growth_rate": 8, "block_config": (2, 2, 2), "num_init_features": 16}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equals_torchvision(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = randomise(getattr(torchvision.models, name)(num_classes=10, **options))
    captured = _same(model, (example(64, batch=3),))
    names = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert names <= {n for n, _ in captured.named_modules()}


def test_several_inputs() -> None:
    torch.manual_seed(0)
    _same(TwoInputs().eval(), (example(batch=4), torch.tensor([1, 6, 0, 3])))


def test_the_model_is_not_touched() -> None:
    model = ResNet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    captured = trace(model, (example(),))
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in captured.parameters()}


def test_any_batch_size_works_whatever_it_was_captured_with() -> None:
    for captured_with in (1, 4):
        captured = trace(Flattened(), (example(batch=captured_with),))
        with torch.no_grad():
            assert captured(example(batch=1)).shape == (1, 5)
            assert captured(example(batch=7)).shape == (7, 5)


def test_layers_keep_the_users_names() -> None:
    model = randomise(ResNet())
    targets = {str(n.target) for n in trace(model, (example(),)).graph.nodes}
    expected = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    }
    assert expected <= targets


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Functional, {"weight", "mix"}),
        (CalledTwice, {"stem", "conv", "bn1", "bn2"}),
        (Tied, {"first", "second"}),
        (SameNames, {"conv", "conv_again"}),
        (Attention, {"patch", "norm", "attention.in_proj", "attention.out_proj", "fc"}),
    ],
)
def test_names_of_unusual_layers(kind: type[nn.Module], expected: set[str]) -> None:
    captured = trace(kind(), (example(),))
    calls = {str(n.target) for n in captured.graph.nodes if n.op == "call_module"}
    assert calls == expected


def test_dropout_is_a_layer_and_off() -> None:
    captured = trace(Dropouts(), (example(),))
    kinds = [type(m) for m in captured.modules() if isinstance(m, nn.Dropout)]
    assert len(kinds) == 2
    assert not any(m.training for m in captured.modules())
    captured.train()
    assert not torch.equal(captured(example()), captured(example()))


def _looped(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([row.sum() * row.flatten()[:4] for row in [x[i] for i in range(len(x))]])


class Wrong(nn.Module):
    """A layer, and then whatever the test wants."""

    def __init__(self, then: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.then = then

    def forward(self, x: torch.Tensor) -> Any:
        return self.then(self.conv(x))


class Branching(Wrong):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        if y.sum() > 0:  # this very line is named
            return y.mean((2, 3))
        return y.amax((2, 3))


class Raising(Wrong):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return y.view(-1, 77).mean(1)  # this very line is named


class RaisingDeepInside(Wrong):
    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x[:, :2])  # this very line is named


class Overwriting(Wrong):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        y[:, :2] += 1.0  # this very line is named
        return y.mean((2, 3))


class OverwritingWhatAViewReads(Wrong):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        flat = y.flatten(1)
        y.mul_(3.0)  # this very line is named
        return flat


@pytest.mark.parametrize(
    "kind", [Branching, Raising, RaisingDeepInside, Overwriting, OverwritingWhatAViewReads]
)
def test_the_users_line_is_named(kind: type[Wrong]) -> None:
    lines, start = inspect.getsourcelines(kind)
    at = next(i for i, line in enumerate(lines) if "this very line" in line)
    with pytest.raises(CaptureError) as caught:
        trace(kind(), (example(),))
    assert f'{__file__}", line {start + at}' in str(caught.value)
    assert lines[at].partition("#")[0].strip() in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        (lambda x: (x, x), "returns a tuple"),
        (lambda x: {"logits": x}, "returns a dict"),
        (lambda x: None, "returns a NoneType"),
        (_looped, "one batch size only"),
        (lambda x: x.reshape(2, -1), "must be the batch"),
        (lambda x: x.sum(), "must be the batch"),
        (lambda x: x.reshape(2, 144)[:, :5] + x.mean((1, 2, 3))[:2, None], "two examples"),
    ],
    ids=[
        "tuple",
        "dict",
        "nothing",
        "loop over the batch",
        "batch in the code",
        "no batch",
        "two only",
    ],
)
def test_what_cannot_be_deployed(then: Any, shown: str) -> None:
    with pytest.raises(CaptureError, match=shown):
        trace(Wrong(then), (example(),))


def test_inputs_that_do_not_fit_are_shown() -> None:
    with pytest.raises(CaptureError, match=r"shapes \[\(2, 1, 8, 8\)\].*expected input"):
        trace(ResNet(), (torch.zeros(1, 1, 8, 8),))


def test_a_model_that_draws_random_numbers_is_captured_without_them() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x.flatten(1), 0.5)

    captured = trace(Noisy(), (example(),))
    assert torch.equal(captured(example()), example().flatten(1))
