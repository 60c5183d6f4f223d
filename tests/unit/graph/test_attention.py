"""Attention heads become channels that go in units, whatever way attention is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models import VisionTransformer

from autocompress.compression.importance.ranking import rank_channels
from autocompress.compression.importance.registry import get_criterion
from autocompress.compression.quantization import simulate_quantization
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.export.onnx_export import ExportedModel, export_onnx
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ChannelGroup, ModelGraph
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.lowerings.onnxruntime_cpu.lower import lower
from autocompress.measurement.kernels import signatures
from autocompress.runtimes.registry import load_runtime
from tests.unit import attention_networks as networks

torch.set_num_threads(1)
HEAD_DIM = networks.WIDTH // networks.HEADS


def heads(graph: ModelGraph) -> list[ChannelGroup]:
    return [g for g in graph.groups.values() if g.unit > 1 and g.rigid is None]


def keeping(graph: ModelGraph, counts: tuple[int, ...]) -> Candidate:
    """The candidate with so many heads in each attention."""
    layers = {
        name: LayerPolicy(width=count * group.unit)
        for group, count in zip(heads(graph), counts, strict=True)
        for name in group.producers
    }
    return Candidate(layers=layers)


def exported(graph: ModelGraph, candidate: Candidate, path: Path) -> ExportedModel:
    model = realise(ElasticModel(graph), candidate)
    return export_onnx(model, graph.operations(candidate), graph.example_inputs, path)


def run(path: Path, x: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(found)


def largest(difference: torch.Tensor) -> float:
    return float(difference.detach().abs().max())


@pytest.mark.parametrize("name", networks.FOLLOWED)
def test_every_way_to_write_it_is_followed(name: str) -> None:
    graph = networks.graph(name)
    model, x = networks.network(networks.FOLLOWED[name]), networks.example(4)
    assert largest(graph.module(x) - model(x)) <= 1e-5
    found = heads(graph)
    assert [(g.channels, g.unit) for g in found] == [(networks.WIDTH, HEAD_DIM)] * 2
    for group in found:
        assert sorted(m.role for m in group.members) == ["in", "out", "out", "out"]
    assert not [s for s in graph.skipped if "attention" in s.reason]


@pytest.mark.parametrize("name", networks.FOLLOWED)
def test_any_heads_are_exact_from_shared_weights_to_the_runtime(name: str, tmp_path: Path) -> None:
    graph, x = networks.graph(name), networks.example(3)
    elastic = ElasticModel(graph).eval()
    full = elastic(x)
    # masks are translated by torch, which takes seconds
    for counts in ((1, 2),) if "mask" in name else ((1, 2), (3, 1)):
        candidate = keeping(graph, counts)
        shared = elastic.configure(candidate)(x)
        small = realise(elastic, candidate)
        path = tmp_path / "model.onnx"
        export_onnx(small, graph.operations(candidate), graph.example_inputs, path)
        assert largest(shared - small(x)) <= 1e-5
        assert largest(small(x) - run(path, x)) <= 1e-5
        assert largest(shared - full) > 1e-4


@settings(max_examples=12, deadline=None)
@given(counts=st.tuples(st.integers(1, 3), st.integers(1, 3)), name=st.sampled_from(
    ["torch", "packed, interleaved", "separate, mask added"]
), seed=st.integers(0, 99))  # fmt: skip
def test_random_heads_are_those_of_masked_attention(
    counts: tuple[int, int], name: str, seed: int
) -> None:
    """Which heads stay is up to the order; the others count as if their results were zero."""
    graph, x = networks.graph(name), networks.example(2)
    rng = np.random.default_rng(seed)
    orders = {g.name: g.expanded(rng.permutation(g.units).tolist()) for g in heads(graph)}
    others = {
        g.name: tuple(range(g.channels))
        for g in graph.groups.values()
        if g.rigid is None and g.name not in orders
    }
    elastic = ElasticModel(graph, orders={**orders, **others}).eval()
    found = elastic.configure(keeping(graph, counts))(x)
    masked = ElasticModel(graph, orders={g: tuple(range(graph.groups[g].channels))
                                         for g in (*orders, *others)}).eval()  # fmt: skip
    for group, count in zip(heads(graph), counts, strict=True):
        gone = list(orders[group.name][count * group.unit :])
        reader = next(m.module for m in group.members if m.role == "in")
        with torch.no_grad():
            masked.layers[reader].weight[:, gone] = 0.0
    assert largest(found - masked(x)) <= 1e-5
    assert largest(found - realise(elastic, keeping(graph, counts))(x)) <= 1e-5


@pytest.mark.parametrize(("block", "reason"), networks.LEFT.values(), ids=networks.LEFT)
def test_what_cannot_be_followed_is_left_alone(block: Callable[[], nn.Module], reason: str) -> None:
    model, x = networks.network(block), networks.example(4)
    graph = inspect_model(model, (networks.example(),))
    assert not heads(graph)
    assert largest(graph.module(x) - model(x)) == 0.0
    told = [s for s in graph.skipped if s.reason.startswith("attention heads kept")]
    assert [s.name for s in told] == ["blocks.0.inner", "blocks.1.inner"]
    assert all(reason in s.reason for s in told)


def vision_transformer() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = VisionTransformer(
            image_size=16, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48,
            num_classes=5,
        )  # fmt: skip
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_bias)
        nn.init.normal_(model.get_parameter("heads.head.weight"))
    model.eval()
    return model


def test_half_the_heads_of_torchvisions_vision_transformer(tmp_path: Path) -> None:
    model, x = vision_transformer(), torch.randn(3, 3, 16, 16)
    space = ElasticSpace.from_model(model, (x[:1],), techniques=make_techniques(["pruning"]))
    graph = space.graph
    assert largest(graph.module(x) - model(x)) <= 1e-5
    assert [(g.channels, g.unit) for g in heads(graph)] == [(32, 8)] * 2
    assert [block.name for block in graph.blocks] == [
        f"encoder.layers.encoder_layer_{i}" for i in range(2)
    ]
    sizes = []
    for number, counts in enumerate(((4, 4), (2, 2))):
        candidate = keeping(graph, counts)
        made = exported(graph, candidate, tmp_path / f"{number}.onnx")
        small = realise(ElasticModel(graph), candidate)
        assert largest(small(x) - run(made.path, x)) <= 1e-5
        sizes.append(made.size_bytes)
    # four layers of each of two blocks lose half of 32 x 32 weights and some biases
    assert sizes[0] - sizes[1] >= 2 * 4 * 16 * 32 * 4


@pytest.mark.parametrize("integer", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("name", ["torch's encoder layer", "packed, unbind", "separate"])
def test_priced_kernels_are_those_that_run(name: str, integer: bool, tmp_path: Path) -> None:
    graph = networks.graph(name)
    candidate = keeping(graph, (2, 1))
    if integer:
        bits = {n: candidate.policy(n) for n in graph.layers}
        candidate = candidate.with_layers({
            n: LayerPolicy(width=p.width, weight_bits=8, activation_bits=8)
            for n, p in bits.items()
        })  # fmt: skip
    ops = graph.operations(candidate)
    small = realise(ElasticModel(graph, make_techniques(["pruning", "quantization"])), candidate)
    simulated = simulate_quantization(small, ops, [networks.example(8)])
    made = export_onnx(simulated, ops, graph.example_inputs, tmp_path / "model.onnx")
    x = networks.example(3)
    assert largest(simulated(x) - run(made.path, x)) <= (0.05 if integer else 1e-5)
    expected = sorted(k.key for k in signatures(load_runtime().kernels(made.path)))
    assert sorted(k.key for k in lower(ops, quantized_tensors(ops))) == expected


@pytest.mark.parametrize(("criterion", "rounds"), [("l2", 1), ("l2", 2)])
def test_whole_heads_are_ranked(criterion: str, rounds: int) -> None:
    graph = networks.graph("packed, unbind")
    ranking = rank_channels(graph, get_criterion(criterion), rounds=rounds)
    for group in heads(graph):
        assert group.is_order(ranking.orders[group.name])


def test_a_head_with_small_weights_goes_first() -> None:
    model = networks.network(networks.FOLLOWED["separate"])
    attention = model.get_submodule("blocks.0.inner")
    with torch.no_grad():
        for name in ("query", "key", "value"):
            attention.get_parameter(f"{name}.weight")[HEAD_DIM : 2 * HEAD_DIM] *= 0.01
        attention.get_parameter("dense.weight")[:, HEAD_DIM : 2 * HEAD_DIM] *= 0.01
    graph = inspect_model(model, (networks.example(),))
    order = rank_channels(graph, get_criterion("l2")).orders["blocks.0.inner.query"]
    assert set(order[-HEAD_DIM:]) == set(range(HEAD_DIM, 2 * HEAD_DIM))


def test_half_a_head_cannot_go() -> None:
    graph = networks.graph("separate")
    name = heads(graph)[0].name
    layers = {n: LayerPolicy(width=6) for n in graph.groups[name].producers}
    with pytest.raises(RequestError, match="multiple of 4"):
        graph.operations(Candidate(layers=layers))
    torn = {g.name: tuple(range(g.channels)) for g in graph.groups.values() if g.rigid is None}
    torn[name] = (1, 0, *range(2, networks.WIDTH))
    with pytest.raises(RequestError, match="heads of 4"):
        ElasticModel(graph, orders=torn)
