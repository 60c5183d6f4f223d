"""A small model, a profile that does not change, and a driver process, for tests of whole runs.

``python -m tests.integration.runs RUN --profile=DIR …`` searches and prints an event a line; it is
what the fault tests kill and interrupt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

import autocompress as ac
from autocompress.core.events import Event, Observer
from autocompress.core.trial import TrialRecord
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.evaluator import uniform
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile
from autocompress.search.store import read_trials

ROOT = Path(__file__).resolve().parents[2]
SEED = 3
BUDGET = ac.Budget(trials=6, train_steps=90)


class SmallCNN(nn.Module):
    """A stem, one residual block and a classifier."""

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
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def trained_cnn(epochs: int = 6) -> SmallCNN:
    """The same trained model every time."""
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


def write_fixed_profile(folder: Path) -> HardwareProfile:
    """This machine under another name, so that nothing is measured or timed any more.

    The kernels of one model in fp32 and int8 are measured; others are estimated from those.
    """
    space = ElasticSpace.from_model(SmallCNN(), (ac.Data.load("digits").example()[0],))
    predictor = LatencyPredictor.for_device(ac.load_profile("local"))
    for candidate in (space.decode(space.original), uniform(list(space.graph.layers), 8, 8)):
        predictor.measure(predictor.missing(space.graph.operations(candidate)))
    profile = replace(predictor.profile, id="fixed_cpu", description="a profile for tests")
    profile.save(folder)
    return profile


#: Stages that ask for the loss of many variants; no test interrupts them while it is slow.
BRISK = frozenset({"rank", "sensitise"})
_stage = ""


def slow_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy that takes its time, for trials that are long enough to be interrupted."""
    if _stage not in BRISK:
        time.sleep(float(os.environ.get("SLOW_LOSS_SECONDS", "0")))
    return nn.functional.cross_entropy(outputs, targets)


def content(folder: Path) -> list[tuple[object, ...]]:
    """The trials of a run, without times and attempts."""
    path = folder / "study.db"
    trials: list[TrialRecord] = read_trials(path) if path.is_file() else []
    return [
        (t.number, t.genome, t.fidelity, t.metrics, t.state, t.error, t.seed, t.origin)
        for t in trials
    ]


def front(folder: Path) -> dict[str, str]:
    """The verified models of a run: id to SHA-256 of the file."""
    solutions = ac.SearchResult(folder).solutions
    return {s.id: str(s.manifest["sha256"]) for s in solutions}


def status(folder: Path) -> str:
    """The run's status."""
    return ac.SearchResult(folder).view.status


@dataclass(frozen=True)
class Setup:
    """A search that can be made here or in a driver process.

    Attributes:
        profile: folder of the device's profile.
        weights: of :class:`SmallCNN`; it has random ones without.
        space: name of a search space, instead of the model.
        trials: of the budget.
        steps: of the budget.
        workers: worker processes.
    """

    profile: Path
    weights: Path | None = None
    space: str | None = None
    trials: int = 6
    steps: int = 90
    workers: int = 1

    def search(self, folder: Path, *callbacks: Observer) -> ac.SearchResult:
        """Search, or resume, in this process."""
        torch.set_num_threads(1)
        model = SmallCNN()
        if self.weights is not None:
            model.load_state_dict(load_file(self.weights))
        return ac.search(
            self.space or model.eval(), "digits", device=self.profile, run_dir=folder,
            budget=ac.Budget(trials=self.trials, train_steps=self.steps), seed=SEED,
            task=ac.Task(loss=slow_loss), workers=self.workers, progress="none",
            callbacks=callbacks,
        )  # fmt: skip

    def start(self, folder: Path, *, slow: float = 0.0) -> subprocess.Popen[str]:
        """A driver in a process group of its own, as a terminal would make it."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.runs", str(folder)]
            + [f"--{name}={value}" for name, value in given.items()],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "SLOW_LOSS_SECONDS": str(slow)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def events_until(driver: subprocess.Popen[str], stage: str, kind: str) -> list[dict[str, Any]]:
    """Read events until one of that stage and kind came, or the driver has ended."""
    assert driver.stdout is not None
    found: list[dict[str, Any]] = []
    for line in driver.stdout:
        found.append(json.loads(line))
        if (found[-1]["stage"], found[-1]["kind"]) == (stage, kind):
            break
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Search as the arguments say, an event a line on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--space")
    for name in ("trials", "steps", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = vars(parser.parse_args(arguments))

    def tell(event: Event) -> None:
        global _stage
        _stage = event.stage
        value = {"stage": event.stage, "kind": event.kind, "seconds": event.data.get("seconds")}
        print(json.dumps(value), flush=True)

    folder = given.pop("run")
    try:
        result = Setup(**given).search(folder, tell)
    except KeyboardInterrupt:
        return 130
    return 130 if result.view.status == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
