"""Attention over token ids: any length of rows, and rows of nothing but padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.export.onnx_export import export_onnx
from autocompress.graph.capture import free_axes
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 0, 0]])
WIDTH, HEADS = 12, 3


class OneCall(nn.Module):
    """``scaled_dot_product_attention`` that hides padding or later tokens."""

    def __init__(self, mask: str) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mask = mask
        self.register_buffer("later", torch.ones(1, 1, 12, 12).triu(1) == 1)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = (t.view(n, length, HEADS, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mask = None
        if self.mask == "boolean":
            mask = ~padding[:, None, None]
        elif self.mask == "floats":
            hidden = padding[:, None, None]
            mask = torch.zeros(n, 1, 1, length).masked_fill(hidden, -torch.inf)
        elif self.mask == "constant":
            mask = ~self.get_buffer("later")[:, :, :length, :length]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.mask == "causal")
        out: torch.Tensor = self.proj(y.transpose(1, 2).contiguous().view(n, length, -1))
        return out


class Torch(nn.Module):
    """``nn.MultiheadAttention`` that is told of padding."""

    def __init__(self, weights: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(
            x, x, x, key_padding_mask=padding, need_weights=self.weights
        )[0]
        return y


class Layer(nn.TransformerEncoderLayer):
    """Torch's own, told of padding."""

    def __init__(self) -> None:
        super().__init__(WIDTH, HEADS, 16, batch_first=True)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        y: torch.Tensor = super().forward(x, src_key_padding_mask=padding)
        return y


class Flat(nn.Module):
    """Examples and positions in one dimension around a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.proj(x.reshape(-1, WIDTH)).reshape(x.shape)
        return y


class Thinned(Flat):
    """Every second position, twice."""

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        half: torch.Tensor = self.proj(x[:, ::2])
        return half.mean(1, keepdim=True) + half.sum(1, keepdim=True)


class OneLength(Flat):
    """With a position for each of ten tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(10, WIDTH))

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.proj(x + self.positions)
        return y


class Classifier(nn.Module):
    """The mean over all positions of ``x + block(x)``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.table, self.block = nn.Embedding(10, WIDTH), block
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        logits: torch.Tensor = self.head((x + self.block(x, ids == 0)).mean(1))
        return logits


def made(block: nn.Module, ids: torch.Tensor = IDS) -> tuple[nn.Module, ModelGraph]:
    model = Classifier(block).eval()
    return model, inspect_model(model, (ids,))


def rows_of_any_kind(length: int) -> torch.Tensor:
    """Real tokens, some padding, nothing but padding."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(1, 10, (3, length), generator=generator)
    ids[1, length // 2 :] = 0
    ids[2] = 0
    return ids


def check_runtime(
    graph: ModelGraph, candidate: Candidate, path: Path, lengths: tuple[int, ...]
) -> fx.GraphModule:
    """Realised and exported, the candidate gives the same."""
    small = realise(ElasticModel(graph), candidate)
    export_onnx(small, graph.operations(candidate), graph.example_inputs, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for length in lengths:
        x = rows_of_any_kind(length)
        (found,) = session.run(None, {"ids": x.numpy()})
        with torch.no_grad():
            # the form with weights gives no numbers where nothing is left, in torch too
            assert torch.allclose(torch.from_numpy(found), small(x), atol=1e-5, equal_nan=True)
    return small


BLOCKS: Mapping[str, Callable[[], nn.Module]] = {
    "causal": lambda: OneCall("causal"),
    "constant mask": lambda: OneCall("constant"),
    "boolean mask": lambda: OneCall("boolean"),
    "mask of floats": lambda: OneCall("floats"),
    "torch": Torch,
    "torch's encoder layer": Layer,
}


@pytest.mark.parametrize("name", BLOCKS)
def test_any_length_and_rows_of_padding_alone(name: str, tmp_path: Path) -> None:
    """As the model, which gives numbers where a row has nothing to look at."""
    torch.manual_seed(0)
    model, graph = made(BLOCKS[name]())
    (node,) = (n for n in graph.module.graph.nodes if n.op == "placeholder")
    assert free_axes(node) == (0, 1)
    (group,) = (g for g in graph.groups.values() if g.unit > 1 and g.rigid is None)
    whole = check_runtime(graph, Candidate(), tmp_path / "whole.onnx", (10, 7, 4))
    for length in (10, 7, 4):
        x = rows_of_any_kind(length)
        with torch.no_grad():
            expected = model(x)
            assert bool(expected.isfinite().all())
            assert torch.allclose(whole(x), expected, atol=1e-5)
    layers = {n: LayerPolicy(width=2 * group.unit) for n in group.producers}
    check_runtime(graph, Candidate(layers=layers), tmp_path / "narrow.onnx", (10, 4))


@pytest.mark.parametrize("name", ["boolean mask", "mask of floats", "torch"])
def test_padding_that_no_example_shows_is_foreseen(name: str) -> None:
    torch.manual_seed(0)
    model, graph = made(BLOCKS[name](), torch.tensor([[3, 1, 4, 1, 5, 9]]))
    x = rows_of_any_kind(6)
    with torch.no_grad():
        assert torch.allclose(graph.module(x), model(x), atol=1e-5)


class Turned(OneCall):
    """Heads that cannot go, since queries are changed behind their layer."""

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = (t.view(n, length, HEADS, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mask = ~padding[:, None, None]
        if self.mask == "floats":
            mask = torch.zeros(n, 1, 1, length).masked_fill(~mask, -torch.inf)
        y = F.scaled_dot_product_attention(q.cos(), k, v, attn_mask=mask, scale=0.4)
        out: torch.Tensor = self.proj(y.transpose(1, 2).contiguous().view(n, length, -1))
        return out


@pytest.mark.parametrize("mask", ["boolean", "floats"])
def test_rows_of_padding_alone_where_heads_stay(mask: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, graph = made(Turned(mask))
    assert [s for s in graph.skipped if "attention heads kept" in s.reason]
    whole = check_runtime(graph, Candidate(), tmp_path / "m.onnx", (10, 4))
    x = rows_of_any_kind(7)
    with torch.no_grad():
        assert torch.allclose(whole(x), model(x), atol=1e-5)


def test_gradients_pass_rows_of_padding_alone() -> None:
    _, graph = made(OneCall("boolean"))
    graph.module(rows_of_any_kind(6)).sum().backward()
    gradients = [p.grad for p in graph.module.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_a_mask_that_always_leaves_something_costs_nothing_more() -> None:
    """Only what may hide a whole row is guarded."""

    def fills(block: nn.Module) -> int:
        nodes = made(block)[1].module.graph.nodes
        return sum("masked_fill" in str(node.target) for node in nodes)

    assert (fills(OneCall("constant")), fills(OneCall("boolean"))) == (1, 2)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (Flat, "mixes the batch with the length"),
        (lambda: Torch(weights=True), "mixes the batch with the length"),
        (Thinned, "changes unevenly"),
        (OneLength, "fails on shorter rows"),
    ],
    ids=["flat", "torch, with weights", "thinned", "one length"],
)
def test_a_length_that_no_file_can_leave_free_is_kept(
    block: Callable[[], nn.Module], reason: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, graph = made(block())
    (node,) = (n for n in graph.module.graph.nodes if n.op == "placeholder")
    assert free_axes(node) == (0,)
    (told,) = (s for s in graph.skipped if s.name == "(length of rows)")
    assert reason in told.reason
    small = check_runtime(graph, Candidate(), tmp_path / "m.onnx", (10,))
    ids = IDS.expand(3, -1)
    with torch.no_grad():
        assert torch.allclose(small(ids), model(ids), atol=1e-5)
