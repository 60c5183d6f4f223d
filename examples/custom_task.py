"""A task that is not classification: predict how much ink an image holds, and where.

The model is a regressor with three outputs (share of ink, centre of mass in x and y), trained with
a loss and judged by a metric of its own (mean absolute error; smaller is better).
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import autocompress as ac


def targets(images: torch.Tensor) -> torch.Tensor:
    """Share of ink and its centre of mass, ``(n, 3)``, each about 0..1."""
    ink = images.sum((1, 2, 3)).clamp_min(1e-6)
    height, width = images.shape[-2:]
    rows = torch.linspace(0, 1, height).view(1, 1, height, 1)
    columns = torch.linspace(0, 1, width).view(1, 1, 1, width)
    return torch.stack(
        [
            ink / (height * width),
            (images * columns).sum((1, 2, 3)) / ink,
            (images * rows).sum((1, 2, 3)) / ink,
        ],
        1,
    )


def loss(outputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Smooth L1: robust to the few images with little ink."""
    return nn.functional.smooth_l1_loss(outputs, wanted, beta=0.05)


def mean_absolute_error(outputs: torch.Tensor, wanted: torch.Tensor) -> float:
    """Mean absolute error over all three outputs."""
    return float((outputs - wanted).abs().mean())


def regressor() -> nn.Module:
    """A small convolutional regressor for 8x8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 3),
    )  # fmt: skip


def main(budget: str = "90s", run_dir: str | None = None) -> ac.SearchResult:
    """Train the regressor, then search for smaller and faster versions of it."""
    digits = ac.Data.load("digits")
    images = {name: torch.from_numpy(split.arrays()[0]) for name, split in digits.splits.items()}
    pairs = {name: (x, targets(x)) for name, x in images.items()}
    data = ac.Data(pairs["train"], pairs["val"], pairs["test"], name="ink")
    torch.manual_seed(0)
    model = regressor()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(20):
        for x, y in data.train.batches(64, shuffle=True, seed=epoch):
            optimizer.zero_grad()
            loss(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    model.eval()
    task = ac.Task(loss=loss, metric=mean_absolute_error, higher_is_better=False, name="ink")
    result = ac.search(model, data, task=task, budget=budget, run_dir=run_dir)
    columns = ["name", "accuracy", "latency_ms", "size_bytes"]
    print(result.baseline[columns].to_string())
    print(result.pareto[[*columns, "changes"]].to_string())
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--run-dir", default=None)
    arguments = parser.parse_args()
    main(arguments.budget, arguments.run_dir)
