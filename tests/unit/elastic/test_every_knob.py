"""Every option of every choice changes what the network says: families of networks in small."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import DenseNet, VisionTransformer
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.models.squeezenet import Fire

from autocompress.compression.quantization import simulate_quantization
from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import CPU_PRECISIONS, Capabilities, Precision
from autocompress.core.space import Choice
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.testing.knobs import Turned, turn_knobs, with_active
from tests.unit.named_spaces import small_input, small_space
from tests.unit.networks import BasicBlock, ResNet, example, randomise

STORED = (Precision(16, 32, fast=False), Precision(8, 32, fast=False), Precision(2, 32, fast=False))
DEVICE = Capabilities(
    precisions=(*CPU_PRECISIONS, *STORED), channel_step=4, rank_step=4, stores_packed=True
)


class Excited(nn.Module):
    """Inverted residuals with squeeze-and-excitation, one with the identity beside it."""

    def __init__(self) -> None:
        super().__init__()
        settings = [(8, 32, 16, 2), (16, 48, 16, 1)]  # in, inner, out, stride
        plans = (
            InvertedResidualConfig(before, 5, inner, after, True, "HS", stride, 1, 1.0)
            for before, inner, after, stride in settings
        )
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(InvertedResidual(plan, nn.BatchNorm2d) for plan in plans))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.blocks(F.hardswish(self.stem(x))).mean((2, 3)))
        return logits


class Fired(nn.Module):
    """Two fire modules: 1x1 and 3x3 convolutions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), Fire(16, 8, 16, 16), Fire(32, 8, 16, 16),
            nn.Conv2d(32, 5, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(x).mean((2, 3))
        return logits


def _dense() -> nn.Module:
    made: nn.Module = DenseNet(8, (2, 2), num_init_features=16, num_classes=5)
    return made


def _transformer() -> nn.Module:
    made: nn.Module = VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=5,
    )  # fmt: skip
    return made


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: ResNet(widths=(8, 12)),
    "inverted residual": Excited,
    "fire": Fired,
    "dense": _dense,
    "transformer": _transformer,
}


@cache
def _family(name: str) -> ElasticSpace:
    torch.manual_seed(0)
    model = randomise(FAMILIES[name]())
    for parameter in model.parameters():  # heads and tokens that begin as zeros
        if float(parameter.detach().std()) < 1e-6:
            nn.init.normal_(parameter, 0, 0.2)
    reestimate_batch_norm(model, [example(16, batch=32)])
    return ElasticSpace.from_model(
        model, (example(16),), techniques=make_techniques(None), capabilities=DEVICE
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_of_a_family(name: str) -> None:
    found = _family(name)
    elastic = ElasticModel(found.graph, found.techniques).eval()
    turned = list(turn_knobs(found, elastic, (example(16, batch=4, seed=1),)))
    assert len(turned) == sum(len(c.options) - 1 for c in found.choices if c.kind != "recipe")
    assert [one for one in turned if not one.has_effect] == []


#: One choice in so many is turned: a benchmark turns them all.
STRIDES = {"mobile_cnn": 40, "resnet": 8, "text_encoder": 1, "tiny_cnn": 8, "vit": 8}


@pytest.mark.parametrize("name", STRIDES)
def test_of_a_named_space(name: str) -> None:
    found = small_space(name)
    elastic = ElasticModel(found.graph, found.techniques).eval()
    inputs = (small_input(name, 4),)
    seen = small_input(name, 16, seed=1)
    reestimate_batch_norm(elastic.configure(found.decode(found.original)), [seen])
    places = range(0, len(found.choices), STRIDES[name])
    assert [one for one in turn_knobs(found, elastic, inputs, places) if not one.has_effect] == []


@pytest.mark.parametrize("name", ["residual", "transformer"])
def test_bits_of_activations_change_the_realised_network(name: str) -> None:
    """The shared weights leave activations as they are, so they are looked at where they count."""
    found = _family(name)
    elastic = ElasticModel(found.graph, found.techniques).eval()
    x = example(16, batch=8)
    for place, choice in enumerate(found.choices):
        if not choice.name.startswith("precision:"):
            continue
        outputs = []
        for option in ("w8a32", "w8a8"):
            genome = with_active(found, place)
            genome[place] = choice.options.index(option)
            candidate = found.decode(genome)
            ops = found.graph.operations(candidate)
            model = simulate_quantization(realise(elastic, candidate), ops, [x]).eval()
            with torch.no_grad():
                outputs.append(model(x))
        assert float((outputs[0] - outputs[1]).abs().max()) > 1e-6, choice.name


def test_an_option_without_effect_is_found() -> None:
    """A kernel of its full size is no smaller one: the layer stays as it is."""
    torch.manual_seed(0)
    model = randomise(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), BasicBlock(8, 8), nn.Flatten()))
    found = ElasticSpace.from_model(
        model, (example(),), techniques=(), architecture=[Choice("kernel:0", (None, 3, 1))]
    )
    elastic = ElasticModel(found.graph).eval()
    kernels = [t for t in turn_knobs(found, elastic, (example(),)) if t.choice == "kernel:0"]
    assert [(one.option, one.has_effect) for one in kernels] == [(3, False), (1, True)]


def test_rounding_is_no_effect() -> None:
    assert not Turned("rank:a", "svd:4", 5e-7).has_effect
    assert Turned("rank:a", "svd:4", 5e-6).has_effect
    assert Turned("precision:a", "w16a32", 5e-7).has_effect
    assert not Turned("precision:a", "w16a32", 0.0).has_effect
