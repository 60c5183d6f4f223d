"""Folding batch norm changes no output, and is left out where it would."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from autocompress.core.candidate import Candidate
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from tests.unit.networks import MobileNet, Perceptron, example, randomise


class Sequence(nn.Module):
    """Batch norm over eight positions of eight features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.norm(self.first(x[:, 0]))).mean(1)
        return out


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.stem(x)
        for norm in self.norms:
            y = F.relu(norm(self.conv(y)))
        return y.mean((2, 3))


class ReadTwice(nn.Module):
    """The layer's own output is read beside its batch norm; another norm follows no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        out: torch.Tensor = self.second(F.relu(self.norm(y)) + y)
        return out.mean((2, 3))


class Dilated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, groups=3)
        self.norm = nn.BatchNorm2d(6, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.conv(x))
        return out.mean((2, 3))


def _realised(model: nn.Module, x: torch.Tensor) -> tuple[fx.GraphModule, int]:
    found = inspect_model(model, (x,))
    norms = sum(op.kind == "batch_norm" for op in found.operations(Candidate()))
    return realise(ElasticModel(found).eval(), Candidate()), norms


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (MobileNet, 0), (Perceptron, 0), (Dilated, 0),
        (Sequence, 1), (CalledTwice, 2), (ReadTwice, 2),
    ],
)  # fmt: skip
def test_same_outputs_and_the_norms_that_the_operations_say(
    kind: type[nn.Module], left: int
) -> None:
    torch.manual_seed(0)
    model = randomise(kind())
    x = example(4 if kind is Perceptron else 8)
    plain, said = _realised(model, x)
    with torch.no_grad():
        expected = plain(x)
        folded = fold_batch_norm(plain)
        found = folded(x)
    assert torch.allclose(expected, found, atol=1e-5)
    norms = [m for m in folded.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == left == said


def test_layers_keep_their_nodes_names() -> None:
    plain, _ = _realised(randomise(Perceptron()), example(4))
    before = {n.name for n in plain.graph.nodes if "norm" not in n.name}
    assert {n.name for n in fold_batch_norm(plain).graph.nodes} == before
