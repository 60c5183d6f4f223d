"""Trains shared weights on digits and prints each step's loss: what the fault test kills."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from autocompress.compression.distillation.terms import response_loss
from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.space import ElasticSpace
from autocompress.elastic.training import train_elastic
from autocompress.evaluation.data import Data


class Net(nn.Module):
    """Two convolutions with batch norm, dropout and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Dropout(0.1),
        )  # fmt: skip
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Digits ``(n, 1, 8, 8)`` to logits."""
        logits: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def train(checkpoint: Path | None, steps: int) -> ElasticModel:
    """The same training every time; a line for each step: its number and loss."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = Data.load("digits")
    space = ElasticSpace.from_model(
        Net(), (data.example()[0],), techniques=make_techniques(None),
        capabilities=Capabilities(channel_step=4, rank_step=4),
    )  # fmt: skip
    elastic = ElasticModel(space.graph, space.techniques)
    train_elastic(
        elastic, space, lambda epoch: data.train.batches(32, shuffle=True, seed=epoch),
        nn.CrossEntropyLoss(), lambda outputs, answers: response_loss(outputs, answers, 2.0),
        steps=steps, seed=0, checkpoint=checkpoint,
        progress=lambda step, loss: print(step, loss.hex(), flush=True),
    )  # fmt: skip
    return elastic


if __name__ == "__main__":
    found = train(Path(sys.argv[1]), int(sys.argv[2]))
    total = float(torch.stack([p.double().sum() for p in found.parameters()]).sum())
    print("weights", total.hex(), flush=True)
