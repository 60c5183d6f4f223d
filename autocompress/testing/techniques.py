# ruff: noqa: S101 - these are tests, shipped to whoever writes a technique
"""The contract of :class:`~autocompress.compression.base.Technique`, as tests to inherit.

Example::

    class TestMine(TechniqueContract):
        @pytest.fixture
        def technique(self):
            return Mine()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compression.base import Technique
from autocompress.compression.parts import Part
from autocompress.core.candidate import LayerPolicy, Recipe, Scalar
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import RECIPE, Choice
from autocompress.elastic.layers import ElasticLayer
from autocompress.graph.model_graph import Layer
from autocompress.testing.networks import captured

_TOLERANCE = 1e-4
#: A device that can exploit everything, so that no technique stays silent.
EVERYTHING = Capabilities(channel_step=4, rank_step=4, sparsity_pays=True, stores_packed=True)


class TechniqueContract:
    """Inherit it, name the class ``Test…``, give the fixture :meth:`technique`."""

    @pytest.fixture
    def technique(self) -> Technique:
        """The technique under test."""
        raise NotImplementedError("give your class a fixture `technique`")

    def deployed(self, policy: LayerPolicy, parts: Sequence[Part]) -> Sequence[Part]:
        """What realised parts become once deployed; override when later stages change them."""
        return parts

    def test_it_says_what_it_is(self, technique: Technique) -> None:
        """Users ask for it by name; reports cite its paper."""
        assert technique.name
        assert technique.reference
        assert isinstance(technique.order, int)

    def test_choices_name_layers_or_groups(self, technique: Technique) -> None:
        """There are some, each with something to choose, in settings that are a policy's."""
        graph = captured(_Network)
        choices = technique.choices(graph, EVERYTHING)
        assert choices
        assert len({c.name for c in choices}) == len(choices)
        for choice in choices:
            target = choice.name.partition(":")[2]
            recipe = choice.kind == "recipe"
            known = {field.name for field in fields(Recipe if recipe else LayerPolicy)}
            assert recipe or target in graph.layers or target in graph.groups
            assert choice.name.startswith(RECIPE) == recipe
            assert len(choice.options) > 1
            settings = [technique.settings(choice, value) for value in choice.options]
            assert all(set(s) <= known for s in settings)
            assert len({repr(s) for s in settings}) == len(settings)

    def test_option_zero_changes_nothing(self, technique: Technique) -> None:
        """It is the canonical value of an inactive gene."""
        for choice in technique.choices(captured(_Network), EVERYTHING):
            if choice.kind == "recipe":
                usual = technique.settings(choice, choice.options[0])
                assert all(getattr(Recipe(), field) == v for field, v in usual.items())
        for layer, choice, parts in _layers(technique):
            policy = _policy(technique, choice, choice.options[0])
            assert policy == LayerPolicy()
            assert technique.simulate(layer, policy, parts) is None

    def test_it_does_nothing_when_not_asked(self, technique: Technique) -> None:
        """Whatever else the policy asks for."""
        own = {
            field
            for choice in technique.choices(captured(_Network), EVERYTHING)
            for field in technique.settings(choice, choice.options[0])
        }
        others = {
            "weight_bits": 8, "activation_bits": 8, "sparsity": 0.5, "rank": 4
        }  # fmt: skip
        policy = replace(LayerPolicy(), **{k: v for k, v in others.items() if k not in own})  # type: ignore[arg-type]
        for layer, _, parts in _layers(technique):
            assert technique.simulate(layer, policy, parts) is None
            kept = technique.realise(layer, policy, parts)
            assert [p.weight.data_ptr() for p in kept] == [p.weight.data_ptr() for p in parts]

    def test_realised_computes_what_is_simulated(self, technique: Technique) -> None:
        """For every option of every choice."""
        for layer, policy, parts in _asked(technique):
            x = _input(layer)
            transform = technique.simulate(layer, policy, parts)
            with torch.no_grad():
                simulated = _run(parts if transform is None else transform(parts), x)
                realised = self.deployed(policy, technique.realise(layer, policy, parts))
                found = _run(realised, x)
                assert found.shape == _run(parts, x).shape
            assert float(simulated.std()) > 1e-3
            assert float((simulated - found).abs().max()) <= _TOLERANCE

    def test_realised_is_no_larger(self, technique: Technique) -> None:
        """An option that costs weights is not worth offering."""
        for layer, policy, parts in _asked(technique):
            realised = technique.realise(layer, policy, parts)
            assert sum(p.weight.numel() for p in realised) <= parts[0].weight.numel()

    def test_gradients_reach_the_shared_weights(self, technique: Technique) -> None:
        """Otherwise they could not be trained as candidates."""
        for layer, policy, parts in _asked(technique):
            weight = parts[0].weight.detach().clone().requires_grad_()
            own = [parts[0].with_weight(weight)]
            transform = technique.simulate(layer, policy, own)
            if transform is None:
                continue
            _run(transform(own), _input(layer)).pow(2).mean().backward()  # type: ignore[no-untyped-call]
            assert weight.grad is not None
            assert bool(torch.isfinite(weight.grad).all())
            assert float(weight.grad.abs().max()) > 0

    def test_transforms_follow_the_weights(self, technique: Technique) -> None:
        """What is simulated is the weights as they are, not a copy of what they were."""
        for layer, policy, parts in _asked(technique):
            transform = technique.simulate(layer, policy, parts)
            if transform is None:
                continue
            x = _input(layer)
            moved = [parts[0].with_weight(parts[0].weight.detach() * 1.5)]
            with torch.no_grad():
                before, after = _run(transform(parts), x), _run(transform(moved), x)
            assert not torch.allclose(before, after)

    def test_no_state_is_kept(self, technique: Technique) -> None:
        """The order in which layers and candidates come decides nothing."""
        cases = list(_asked(technique))

        def outputs(order: Sequence[int]) -> dict[int, torch.Tensor]:
            found = {}
            for i in order:
                layer, policy, parts = cases[i]
                transform = technique.simulate(layer, policy, parts)
                with torch.no_grad():
                    found[i] = _run(parts if transform is None else transform(parts), _input(layer))
            return found

        forwards = outputs(range(len(cases)))
        backwards = outputs(range(len(cases) - 1, -1, -1))
        assert all(torch.equal(forwards[i], backwards[i]) for i in forwards)


class _Network(nn.Module):
    """Every kind of layer: dense, strided, 1x1, depthwise, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.dense = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(24, 24, 5, padding=2, groups=24)
        self.point = nn.Conv2d(24, 32, 1)
        self.hidden = nn.Linear(32, 24)
        self.last = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.depthwise(F.relu(self.dense(F.relu(self.stem(x))))))
        y = F.relu(self.hidden(F.relu(self.point(y)).mean((2, 3))))
        out: torch.Tensor = self.last(y)
        return out


def _layers(technique: Technique) -> Iterator[tuple[Layer, Choice, list[Part]]]:
    """Each layer that the technique has a choice for, with its only part."""
    graph = captured(_Network)
    for choice in technique.choices(graph, EVERYTHING):
        if choice.kind == "recipe":
            continue
        target = choice.name.partition(":")[2]
        module = graph.submodule(target)
        assert isinstance(module, nn.Conv2d | nn.Linear)
        part = ElasticLayer(module).sliced()
        detached = replace(
            part,
            weight=part.weight.detach(),
            bias=None if part.bias is None else part.bias.detach(),
        )
        yield graph.layers[target], choice, [detached]


def _asked(technique: Technique) -> Iterator[tuple[Layer, LayerPolicy, list[Part]]]:
    """Each layer under each of its options but the first."""
    for layer, choice, parts in _layers(technique):
        for value in choice.options[1:]:
            yield layer, _policy(technique, choice, value), parts


def _policy(technique: Technique, choice: Choice, value: Scalar | None) -> LayerPolicy:
    return LayerPolicy(**technique.settings(choice, value))  # type: ignore[arg-type]


def _input(layer: Layer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (4, layer.in_channels) if layer.kind == "linear" else (2, layer.in_channels, 8, 8)
    return torch.randn(shape, generator=generator)


def _run(parts: Sequence[Part], x: torch.Tensor) -> torch.Tensor:
    for part in parts:
        x = part(x)
    return x
