"""How good candidates are with inherited weights, against the same ones trained on their own.

CIFAR-10, space ``resnet``. The largest network is trained; then the shared weights, guided by it.
Of the candidates' front in accuracy with inherited weights and estimated latency, twelve spread
over the latencies are each

1. evaluated with inherited weights, batch norm statistics re-estimated: ``inherited``;
2. trained for three epochs from the largest network's weights, distilled from it: ``alone``;
3. trained for as many steps, in the same way, from the elastic weights: ``continued``;

all on the 10,000 test examples, which nothing was chosen by. The front is chosen by validation
examples. What is finished lies in a folder of ``runs/inheritance`` of the scale's name, and is not
done again; remove it to begin anew. Trainings of step 2 and 3 run side by side, one for each core.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from autocompress.compression.distillation.terms import output_loss
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate, Recipe
from autocompress.core.cores import usable_cores
from autocompress.core.pareto import non_dominated
from autocompress.core.space import Genome
from autocompress.elastic.drawing import draw
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.elastic.training import ElasticTraining, train_elastic
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.evaluation.task import Task
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profiles import load_profile
from benchmarks._data import folder
from benchmarks._kept import keep_json, keep_weights, kept_json, runs_of

DEVICE = "amd_epyc_zen5_avx512"
BATCH = 64
#: Learning rates: of the largest network from scratch, of the shared weights, of candidates.
LARGEST_RATE, ELASTIC_RATE, CANDIDATE_RATE = 2e-3, 2e-3, 2e-3


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        examples: training examples; None takes all.
        largest_steps: training steps of the largest network.
        elastic_steps: training steps of the shared weights.
        epochs: that each candidate is trained for.
        sampled: candidates that the front is of.
        chosen: candidates that are trained.
    """

    examples: int | None
    largest_steps: int
    elastic_steps: int
    epochs: float
    sampled: int
    chosen: int

    def name(self, seed: int) -> str:
        """Of the folder of its results: other values have another."""
        values = {**asdict(self), "examples": self.examples or "all", "seed": seed}
        return ",".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in values.items()
        )


FULL = Scale(None, 7030, 5000, 3.0, 160, 12)
QUICK = Scale(5000, 160, 100, 0.25, 24, 6)


class Bench:
    """One setting of the experiment; every phase reads what is finished and does what is missing.

    Args:
        data: folder of CIFAR-10.
        runs: where results are kept.
        scale: how much is done.
        seed: of all that is random.
    """

    def __init__(self, data: Path, runs: Path, scale: Scale, seed: int) -> None:
        torch.set_num_threads(1)
        self.runs, self.scale, self.seed = runs, scale, seed
        whole = Data.load(f"cifar10:{data}")
        train = whole.train
        if scale.examples is not None:
            train = train.subset(scale.examples, seed=0)
        self.data = Data(train, whole.val, whole.test, calibration=whole.calibration)
        self.task = Task()
        profile = load_profile(DEVICE)
        self.space: ElasticSpace = load_space(
            "resnet", input_shape=self.data.input_shape, num_classes=10,
            capabilities=profile.capabilities, seed=seed,
        )  # fmt: skip
        self.elastic = ElasticModel(self.space.graph, self.space.techniques).eval()
        self.latency = CandidatePricer(self.space, LatencyPredictor(profile)).exact
        runs.mkdir(parents=True, exist_ok=True)

    @property
    def original(self) -> Candidate:
        """The largest network."""
        return self.space.decode(self.space.original)

    def largest(self) -> None:
        """Train the largest network, or take it; the elastic model has its weights then."""
        path = self.runs / "largest.safetensors"
        if not path.is_file():
            began = time.monotonic()
            self.elastic.configure(self.original)
            fine_tune(
                self.elastic, self.data.train, self.task,
                recipe=Recipe(distillation="none", learning_rate=LARGEST_RATE),
                steps=self.scale.largest_steps, seed=self.seed, bfloat16=True,
            )  # fmt: skip
            keep_weights(path, self.elastic.weights)
            print(f"largest network trained in {(time.monotonic() - began) / 60:.1f} min")
        self.elastic.weights.load_state_dict(load_file(path))

    def train(self) -> None:
        """Train the shared weights, or take them."""
        path = self.runs / "elastic.safetensors"
        self.largest()
        if not path.is_file():
            teacher = realise(self.elastic, self.original)
            began = time.monotonic()
            train_elastic(
                self.elastic, self.space,
                lambda epoch: self.data.train.batches(BATCH, shuffle=True, seed=7919 + epoch),
                self.task.loss, _distillation,
                steps=self.scale.elastic_steps, seed=self.seed, teacher=teacher,
                settings=ElasticTraining(learning_rate=ELASTIC_RATE, bfloat16=True),
                checkpoint=self.runs / "elastic-training.safetensors",
            )  # fmt: skip
            keep_weights(path, self.elastic.weights)
            print(f"shared weights trained in {(time.monotonic() - began) / 60:.1f} min")
        self.elastic.weights.load_state_dict(load_file(path))

    def choose(self) -> list[Genome]:
        """Candidates spread over the front of accuracy with inherited weights and latency."""
        path = self.runs / "chosen.json"
        if (kept := kept_json(path)) is not None:
            return [np.array(g, dtype=np.int64) for g in kept]
        rng = np.random.default_rng([self.seed, 12])
        genomes = [draw(self.space, rng) for _ in range(self.scale.sampled)]
        evaluator = self.evaluator(Effort(val_limit=1000))
        losses = []
        for genome in genomes:
            found = evaluator.evaluate(
                self.space.decode(genome), fidelity=Fidelity.INHERITED, seed=0
            )
            latency = self.latency(genome)["latency_ms"]
            losses.append([1 - found.metrics["accuracy"], latency])
        chosen = _spread(np.array(losses), self.scale.chosen)
        keep_json(path, [genomes[i].tolist() for i in chosen])
        return [genomes[i] for i in chosen]

    def evaluator(self, effort: Effort) -> CandidateEvaluator:
        """Evaluates candidates of the elastic model's present weights, taught by the largest."""
        return CandidateEvaluator(
            self.elastic, self.data, self.task, effort=effort, original=self.original,
            trained=False, teacher=self._teacher, threads=1,
        )  # fmt: skip

    @cached_property
    def _teacher(self) -> torch.nn.Module:
        held = {n: t.clone() for n, t in self.elastic.weights.state_dict().items()}
        self.elastic.weights.load_state_dict(load_file(self.runs / "largest.safetensors"))
        teacher = realise(self.elastic, self.original)
        self.elastic.weights.load_state_dict(held)
        return teacher

    def score(self, genome: Genome, start: str, steps: int) -> float:
        """Test accuracy after so many steps from the weights of a file."""
        state = load_file(self.runs / f"{start}.safetensors")
        self.elastic.weights.load_state_dict(state)
        evaluator = self.evaluator(Effort(learning_rate=CANDIDATE_RATE, bfloat16=True))
        prepared = evaluator.prepare(self.space.decode(genome), steps=steps, seed=self.seed)
        return float(evaluate_model(prepared.model, self.data.test, self.task))


def _distillation(outputs: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
    return output_loss(outputs, guide, Recipe().temperature, classification=True)


def _spread(losses: np.ndarray[Any, Any], count: int) -> list[int]:
    """Rows of the front (and of what is behind it, while there are too few) by latency."""
    left = np.arange(len(losses))
    found: list[int] = []
    while len(found) < min(count, len(losses)):
        front = left[non_dominated(losses[left])]
        order = front[np.argsort(losses[front, 1])]
        places = np.linspace(0, len(order) - 1, min(count - len(found), len(order))).round()
        found += [int(order[int(p)]) for p in places]
        left = np.setdiff1d(left, front)
    return sorted(found, key=lambda i: float(losses[i, 1]))


_JOBS = {
    "inherited": ("elastic", False),
    "alone": ("largest", True),
    "continued": ("elastic", True),
}


def _job(data: Path, runs: Path, scale: Scale, seed: int, index: int, name: str) -> None:
    """One figure of one candidate, in a process of its own; written to a file."""
    bench = _bench(data, runs, scale, seed)
    start, trains = _JOBS[name]
    steps = round(scale.epochs * len(bench.data.train) / BATCH) if trains else 0
    began = time.monotonic()
    value = bench.score(bench.choose()[index], start, steps)
    taken = time.monotonic() - began
    keep_json(runs / f"{name}-{index}.json", {"accuracy": value, "seconds": taken})


@cache
def _bench(data: Path, runs: Path, scale: Scale, seed: int) -> Bench:
    return Bench(data, runs, scale, seed)


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run what is missing; the figures of all."""
    scale = QUICK if quick else FULL
    place = folder(data, "cifar10")
    runs = runs_of("inheritance") / scale.name(seed)
    bench = _bench(place, runs, scale, seed)
    bench.train()
    genomes = bench.choose()
    jobs = [(i, name) for name in _JOBS for i in range(len(genomes))]
    missing = [(i, n) for i, n in jobs if not (runs / f"{n}-{i}.json").is_file()]
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(_job, place, runs, scale, seed, i, n) for i, n in missing]:
            future.result()
    rows = []
    for i, genome in enumerate(genomes):
        row = {"latency_ms": bench.latency(genome)["latency_ms"]}
        for name in _JOBS:
            row[name] = kept_json(runs / f"{name}-{i}.json")["accuracy"]
        rows.append(row)
    return _report(bench, pd.DataFrame(rows))


def _report(bench: Bench, table: pd.DataFrame) -> dict[str, Any]:
    gap = table["alone"] - table["inherited"]
    gain = table["continued"] - table["alone"]
    before, after = (bench.score(bench.space.original, name, 0) for name in ("largest", "elastic"))
    print(table.round(4).to_string())
    result = {
        "n": len(table),
        "mean_gap_points": 100 * float(gap.mean()),
        "largest_gap_points": 100 * float(gap.max()),
        "spearman": float(table["inherited"].corr(table["alone"], method="spearman")),
        "kendall": float(table["inherited"].corr(table["alone"], method="kendall")),
        "continued_gain_points": 100 * float(gain.mean()),
        "continued_at_least_as_good": int((gain >= 0).sum()),
        "largest_before": before,
        "largest_after": after,
        "rows": table.to_dict("records"),
    }
    print(
        f"inherited is {result['mean_gap_points']:.1f} points below alone on average (at most "
        f"{result['largest_gap_points']:.1f}); Spearman {result['spearman']:.2f}, Kendall "
        f"{result['kendall']:.2f}; from elastic weights {result['continued_gain_points']:+.1f} "
        f"points; the largest network {before:.4f}, afterwards {after:.4f}"
    )
    return result
