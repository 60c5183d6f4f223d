"""A small model, a profile that does not change, and one way to search, for whole-run tests."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import autocompress as ac
from autocompress.core.events import Event
from autocompress.core.space import Genome
from autocompress.elastic.space import ElasticSpace
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile

BUDGET = ac.Budget(trials=6, train_steps=90)
SEED = 3
#: Each line that :func:`main` prints starts with this.
MARK = "@"


class SmallCNN(nn.Module):
    """A stem, one residual block and a classifier for images of one channel."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16),
        )  # fmt: skip
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(n, channels, h, w)`` to logits ``(n, classes)``."""
        x = self.stem(x)
        x = torch.relu(x + self.body(x))
        return self.head(x.mean((2, 3)))


def trained_cnn(epochs: int = 6) -> SmallCNN:
    """The same trained model every time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SmallCNN()
    data = ac.Data.load("digits")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for epoch in range(epochs):
        for x, y in data.train.batches(64, shuffle=True, seed=epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def space_of(model: nn.Module) -> ElasticSpace:
    """The model's space over digits."""
    return ElasticSpace.from_model(model, (ac.Data.load("digits").example()[0],))


def write_fixed_profile(folder: Path, model: nn.Module) -> HardwareProfile:
    """This machine's profile under another name, so that nothing is measured or timed any more.

    A few kernels are measured; the rest is estimated from their kind.
    """
    space = space_of(model)
    predictor = LatencyPredictor.for_device(ac.load_profile("local"))
    genomes: list[Genome] = [space.original, space.canonical(space.sizes - 1)]
    for genome in genomes:
        predictor.measure(predictor.missing(space.graph.operations(space.decode(genome))))
    profile = replace(predictor.profile, id="fixed_cpu", description="a profile for tests")
    profile.save(folder)
    return profile
