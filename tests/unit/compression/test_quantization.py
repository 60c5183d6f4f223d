from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import fx, nn

from autocompress.compression.activation_quantizer import ActivationQuantizer
from autocompress.compression.calibration import run_over
from autocompress.compression.parts import Part
from autocompress.compression.quantization import (
    Quantization,
    recalibrate,
    simulate_quantization,
    simulate_weights,
)
from autocompress.compression.ranges.registry import RANGE_METHODS
from autocompress.compression.stored_layers import SimulatedConv2d, SimulatedLinear, StoredLayer
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.errors import DataError, RequestError
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.graph.ops import Op
from autocompress.graph.precision import quantized_tensors, scale_roots

X = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(x + self.body(x))
        x = nn.functional.max_pool2d(x, 2)
        out: torch.Tensor = self.out(x.flatten(1))
        return out


def _graph() -> ModelGraph:
    torch.manual_seed(0)
    return inspect_model(Net().eval(), (X[:1],))


def _candidate(
    graph: ModelGraph, weights: int, activations: int, **others: LayerPolicy
) -> Candidate:
    same = LayerPolicy(weight_bits=weights, activation_bits=activations)
    return Candidate(layers={**dict.fromkeys(graph.layers, same), **others})


def _prepared(
    weights: int, activations: int, **others: LayerPolicy
) -> tuple[fx.GraphModule, tuple[Op, ...]]:
    graph = _graph()
    model = fold_batch_norm(copy.deepcopy(graph.module))
    return model, graph.operations(_candidate(graph, weights, activations, **others))


def _quantized_nodes(module: fx.GraphModule) -> list[str]:
    return [
        node.all_input_nodes[0].name
        for node in module.graph.nodes
        if node.op == "call_module"
        and isinstance(module.get_submodule(str(node.target)), ActivationQuantizer)
    ]


def test_quantisers_sit_at_exactly_the_quantised_tensors() -> None:
    model, ops = _prepared(8, 8)
    simulated = simulate_quantization(model, ops, [X])
    moved = {"max_pool2d", "flatten"}  # they keep their input's scale
    assert set(_quantized_nodes(simulated)) == set(quantized_tensors(ops)) - moved
    assert scale_roots(ops)["flatten"] == "relu_1"
    assert set(_quantized_nodes(simulated)) == {"x", "relu", "conv2d_1", "relu_1"}


@pytest.mark.parametrize("weights", [16, 8, 4, 2])
def test_float_activations_leave_every_tensor_alone(weights: int) -> None:
    model, ops = _prepared(weights, 32)
    simulated = simulate_quantization(model, ops, [])
    assert _quantized_nodes(simulated) == []
    assert all(isinstance(simulated.get_submodule(n), StoredLayer) for n in ("conv", "body", "out"))


def test_float_layers_stay_plain_and_the_input_is_left_as_it_was() -> None:
    model, ops = _prepared(8, 8, body=LayerPolicy())
    before = model(X)
    simulated = simulate_quantization(model, ops, [X])
    assert type(simulated.get_submodule("body")) is nn.Conv2d
    assert isinstance(simulated.get_submodule("conv"), SimulatedConv2d)
    assert isinstance(simulated.get_submodule("out"), SimulatedLinear)
    assert type(model.get_submodule("conv")) is nn.Conv2d
    assert torch.equal(model(X), before)


def test_fewer_bits_are_further_from_the_float_model() -> None:
    distances = []
    for bits in ((8, 32), (8, 8), (4, 8), (2, 8)):
        model, ops = _prepared(*bits)
        simulated = simulate_quantization(model, ops, [X])
        with torch.no_grad():
            distances.append(float((simulated(X) - model(X)).abs().mean()))
    assert distances == sorted(distances)
    assert distances[0] > 0


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_fewer_activation_bits_have_fewer_values(method: str) -> None:
    distances = []
    for bits in (8, 6, 4):
        model, ops = _prepared(8, bits)
        simulated = simulate_quantization(model, ops, [X], calibration=method)
        seen: dict[str, int] = {}

        def see(
            node: fx.Node, given: list[object], value: torch.Tensor, seen: dict[str, int] = seen
        ) -> None:
            seen[node.name] = len(torch.unique(value))

        run_over(simulated, [X], see)
        places = [f"{name}_quantized" for name in _quantized_nodes(simulated)]
        assert max(seen[place] for place in places) <= 2**bits
        assert max(seen[place] for place in places) > 2 ** (bits - 1)
        with torch.no_grad():
            distances.append(float((simulated(X) - model(X)).abs().mean()))
    assert distances == sorted(distances)


def test_a_mixture_has_the_fewest_bits_around_each_tensor() -> None:
    model, ops = _prepared(8, 8, body=LayerPolicy(8, 6))
    simulated = simulate_quantization(model, ops, [X])
    found = {
        name: simulated.get_submodule(f"activation_quantizers.{name}").bits
        for name in _quantized_nodes(simulated)
    }
    assert found == {"x": 8, "relu": 6, "conv2d_1": 6, "relu_1": 8}
    recalibrate(simulated, [X * 3])
    quantizer = simulated.get_submodule("activation_quantizers.relu")
    assert isinstance(quantizer, ActivationQuantizer)
    low, high = quantizer.range
    assert high - low == pytest.approx(63 * float(quantizer.scale))


def test_it_trains_and_copies() -> None:
    model, ops = _prepared(4, 8)
    simulated = simulate_quantization(model, ops, [X])
    copied = copy.deepcopy(simulated)
    assert torch.equal(copied(X), simulated(X))
    target = torch.arange(16) % 5
    optimizer = torch.optim.Adam(simulated.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(simulated(X), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    for name, parameter in simulated.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name
    assert not torch.equal(copied(X), simulated(X))
    recalibrate(simulated, [X])
    assert bool(torch.isfinite(simulated(X)).all())


def test_its_state_restores_into_a_fresh_simulation() -> None:
    model, ops = _prepared(4, 8)
    trained = simulate_quantization(model, ops, [X])
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.3)
    recalibrate(trained, [X * 2])
    fresh = simulate_quantization(model, ops, [X])
    assert not torch.equal(fresh(X), trained(X))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(X), trained(X))


def test_recalibration_follows_the_data() -> None:
    model, ops = _prepared(8, 8)
    simulated = simulate_quantization(model, ops, [X])
    quantizer = simulated.get_submodule("activation_quantizers.x")
    assert isinstance(quantizer, ActivationQuantizer)
    before = float(quantizer.scale)
    recalibrate(simulated, [X * 3])
    assert float(quantizer.scale) == pytest.approx(3 * before, rel=1e-4)


UNSUPPORTED = {
    "float weights, 8-bit activations": (32, 8, "use weight_bits=8"),
    "half weights, 8-bit activations": (16, 8, "use weight_bits=8"),
    "16-bit activations": (8, 16, "activations are 4, 6 or 8 bits"),
    "half weights, 6-bit activations": (16, 6, "6-bit activations need weights"),
}


@pytest.mark.parametrize(
    ("weights", "activations", "advice"), UNSUPPORTED.values(), ids=UNSUPPORTED
)
def test_bits_without_a_form_are_refused_by_layer(
    weights: int, activations: int, advice: str
) -> None:
    model, ops = _prepared(weights, activations)
    with pytest.raises(RequestError, match=advice) as caught:
        simulate_quantization(model, ops, [X])
    assert "layer 'conv'" in str(caught.value)
    assert f"weight_bits={weights}" in str(caught.value)


def test_operations_of_another_graph_are_refused() -> None:
    model, ops = _prepared(8, 8)
    other = [Op("elsewhere", "conv", ("x",), (1, 1), layer="conv", weight_bits=8)]
    with pytest.raises(RequestError, match="elsewhere"):
        simulate_weights(model, [*ops, *other])


def test_calibration_needs_examples() -> None:
    model, ops = _prepared(8, 8)
    with pytest.raises(DataError, match="no calibration batches"):
        simulate_quantization(model, ops, [])


# -- the technique --------------------------------------------------------------------------------


def test_it_offers_the_precisions_of_the_device() -> None:
    graph = _graph()
    choices = Quantization().choices(graph, Capabilities())
    assert {choice.name for choice in choices} == {f"precision:{name}" for name in graph.layers}
    for option in choices[0].options:
        settings = Quantization().settings(choices[0], option)
        assert set(settings) == {"weight_bits", "activation_bits"}


def _run(parts: Sequence[Part], x: torch.Tensor) -> torch.Tensor:
    for part in parts:
        x = part(x)
    return x


@pytest.mark.parametrize("bits", [16, 8, 4, 2])
def test_simulated_parts_round_and_realised_parts_keep_the_floats(bits: int) -> None:
    graph = _graph()
    layer, technique = graph.layers["body"], Quantization()
    weight = nn.Parameter(torch.randn(8, 8, 3, 3))
    part = Part("conv", weight, None, padding=(1, 1))
    policy = LayerPolicy(weight_bits=bits, activation_bits=32 if bits == 16 else 8)
    transform = technique.simulate(layer, policy, [part])
    assert transform is not None
    x = torch.randn(2, 8, 5, 5)
    rounded = _run(transform([part]), x)
    assert not torch.equal(rounded, part(x))
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert technique.realise(layer, policy, [part]) == [part]
    assert technique.simulate(layer, LayerPolicy(), [part]) is None


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (2, 8), (4, 32), (16, 32)], ids=str)
def test_the_elastic_model_and_the_realised_graph_round_alike(bits: tuple[int, int]) -> None:
    graph = _graph()
    elastic = ElasticModel(graph, [Quantization()]).eval()
    candidate = _candidate(graph, *bits, conv=LayerPolicy(*bits, width=6))
    expected = elastic.configure(candidate)(X)
    realised = simulate_weights(realise(elastic, candidate), graph.operations(candidate))
    assert float((realised(X) - expected).detach().abs().max()) <= 1e-4
