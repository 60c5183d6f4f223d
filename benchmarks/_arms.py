"""One arm of ``joint_vs_staged`` in a process of its own.

``python -m benchmarks._arms FOLDER SEED ARM CORES`` runs an arm on cores such as ``0,1`` and writes
``FOLDER/seedSEED/ARM.json``; with ``prepare`` for the arm, what all arms of the seed begin with.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

import autocompress as ac
from autocompress.compression.registry import make_techniques
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.events import Event
from autocompress.core.files import sha256_of
from autocompress.core.pareto import largest_gains
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import AutocompressError
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort, PreparedModel, uniform
from autocompress.evaluation.task import Task
from autocompress.export.onnx_export import export_onnx
from autocompress.export.verification import Expectations, verify_artifact
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.runtimes.registry import load_runtime
from benchmarks._batch_norms import with_batch_norms
from benchmarks._kept import keep_json
from benchmarks._protocol import Ground

#: Genes of an architecture, by the techniques that have them besides the space's own.
ARCHITECTURE = ("pruning",)
#: What is done to a network whose architecture is settled.
PRUNING, BITS = ("pruning", "low_rank"), ("quantization",)
HELD = ("architecture",)
#: Shares of the budget for architecture, pruning and bits.
STAGES = (0.5, 0.2, 0.3)
#: A search of a stage that gets less than this has little left after its own preparation.
LEAST_SECONDS = 45.0
#: Verified models that an arm ends with at the most; a search takes as many by itself.
ENDING = 16
#: Models of the architecture search that later stages go on with.
CARRIED = 3
#: Share of the budget for quantising uniformly.
UNIFORM = 0.2
#: Peak learning rate of training after quantisation, as searches have for trained models.
_GENTLE = 5e-4
Row = dict[str, Any]


@dataclass
class Model:
    """A trained float network on the way to the next stage.

    Attributes:
        module: with batch norms where it had them.
        row: its figures.
    """

    module: nn.Module
    row: Row


@dataclass
class Arm:
    """Searches of one arm against one clock.

    Attributes:
        ground: where it runs.
        folder: of its searches.
        rows: every verified model so far.
        searches: what each search was given, and took.
        credit: seconds that are not counted: what an arm does again only because it is several
            calls. The rule is one for all arms: capture, timing of a step and the baselines of a
            later search; batch norms put back into a network that goes on; its capture where it is
            trained without a search. Nothing is chosen or trained there. What an arm takes once,
            and exporting and verifying its models, counts.
    """

    ground: Ground
    folder: Path
    rows: list[Row] = field(default_factory=list)
    searches: list[Row] = field(default_factory=list)
    credit: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def budget(self) -> float:
        """Seconds of the whole arm."""
        return self.ground.protocol.seconds

    @property
    def left(self) -> float:
        """Seconds that are left of it."""
        return self.budget + self.credit - (time.monotonic() - self.began)

    @contextmanager
    def getting_ready(self) -> Iterator[None]:
        """Time that is credited."""
        began = time.monotonic()
        yield
        self.credit += time.monotonic() - began

    @property
    def closing(self) -> float:
        """Seconds that exporting and checking one model took here, when it was last done."""
        return float(self.searches[-1]["closing"])

    def search(
        self, name: str, subject: nn.Module | ElasticSpace | str, seconds: float, **wanted: Any
    ) -> ac.SearchResult:
        """One search; its verified models and baselines become rows.

        All but the first are given the time that is credited besides.
        """
        models = wanted.pop("models", ENDING)
        floats_only = wanted.pop("floats_only", False)
        later = bool(self.searches)
        expected = self.searches[-1]["preparation"] if later else 0.0
        stages: dict[str, float] = {}

        def watch(event: Event) -> None:
            if event.kind == "stage_finished":
                stages[event.stage] = float(event.data["seconds"])

        began = time.monotonic()
        result = ac.search(
            subject, self.ground.data, device=self.ground.profile,
            budget=ac.Budget(seconds=max(1.0, seconds + expected), models=models),
            seed=self.ground.seed, run_dir=self.folder / name, progress="none",
            callbacks=(watch,), **wanted,
        )  # fmt: skip
        if result.view.status != "complete":
            raise SystemExit(f"{name} was interrupted")
        taken = time.monotonic() - began
        found: list[Row] = [
            {str(key): value for key, value in row.items()}
            for frame in (result.baseline, result.pareto)
            for row in frame.to_dict("records")
        ]
        kept = [r for r in found if not (floats_only and r["id"] == "baseline-int8")]
        self.rows += [self._row(name, r, result.run_dir / "models" / r["id"]) for r in kept]
        ready = sum(stages.get(stage, 0.0) for stage in _preparing(subject))
        self.credit += ready if later else 0.0
        exported = len(result.pareto) + len(list((result.run_dir / "rejected").glob("*")))
        self.searches.append({
            "name": name, "given": seconds, "seconds": taken, "models": len(kept),
            "preparation": ready, "credited": ready if later else 0.0, "stages": stages,
            "closing": stages.get("verify", 0.0) / max(1, exported),
        })  # fmt: skip
        again = f" and {ready:.0f} s to get ready" if later else ""
        print(f"  {name}: {taken:.0f} s of {seconds:.0f} s{again}, {len(kept)} models", flush=True)
        return result

    def _row(self, stage: str, found: Row, folder: Path) -> Row:
        keys = ("id", "name", "val_accuracy", "latency_estimate_ms", "size_bytes", "macs")
        path = (folder / "model.onnx").relative_to(self.ground.folder)
        row = {"stage": stage, **{k: found[k] for k in keys}, "path": str(path)}
        return row | {k: int(found[k]) for k in ("size_bytes", "macs")}

    def modules(self, name: str, result: ac.SearchResult) -> list[Model]:
        """The returned models of a search in floats, ready to be trained further."""
        rows = [r for r in self.rows if r["stage"] == name and not r["id"].startswith("baseline")]
        with self.getting_ready():
            return [Model(self._trainable(result.module(row["id"])), row) for row in rows]

    def _trainable(self, module: fx.GraphModule) -> nn.Module:
        batches = self.ground.data.train.batches(128, shuffle=True, seed=0, limit=1024)
        return with_batch_norms(module, (inputs for inputs, _ in batches))

    def original(self, name: str) -> list[Model]:
        """The largest network, where it came trained."""
        start = self.ground.start
        if isinstance(start, str):
            return []
        row = next(r for r in self.rows if r["stage"] == name and r["id"] == "baseline-fp32")
        return [Model(copy.deepcopy(start.graph.module), row)]

    def best(self, models: Sequence[Model], count: int) -> list[Model]:
        """Those that add most volume, one by one, by validation accuracy."""
        reference = self.ground.reference
        losses = np.array([
            [
                1.0 - m.row["val_accuracy"],
                np.log2(m.row["latency_estimate_ms"] / reference.latency_ms),
                np.log2(m.row["size_bytes"] / reference.size_bytes),
            ]
            for m in models
        ])  # fmt: skip
        # a little beyond the reference, so that the original itself has a volume
        corner = np.array([1.0 - reference.accuracy, 0.1, 0.1])
        return [models[i] for i in largest_gains(losses, corner, count)] if len(models) else []


def _preparing(subject: nn.Module | ElasticSpace | str) -> tuple[str, ...]:
    """Stages that every search has; the second trains a network that comes untrained."""
    return ("inspect",) if isinstance(subject, str) else ("inspect", "baseline")


def joint(arm: Arm) -> None:
    """One search over architecture and compression."""
    arm.search("joint", arm.ground.start, arm.budget)


def random_joint(arm: Arm) -> None:
    """The same space, every candidate drawn at random."""
    arm.search("random", arm.ground.start, arm.budget, strategy="random")


def architecture_only(arm: Arm) -> None:
    """Depths, widths, resolution and the like, in floats."""
    arm.search(
        "architecture", arm.ground.start, arm.budget, techniques=ARCHITECTURE, floats_only=True
    )


def compression_only(arm: Arm) -> None:
    """The largest structure: widths, ranks and bits of its layers."""
    arm.search("compression", arm.ground.start, arm.budget, held=HELD)


def staged(arm: Arm) -> None:
    """Architecture, then pruning of the best architectures, then bits of the best of all those."""
    first = arm.search(
        "architecture", arm.ground.start, STAGES[0] * arm.budget,
        techniques=ARCHITECTURE, models=CARRIED,
    )  # fmt: skip
    pool = [*arm.original("architecture"), *arm.modules("architecture", first)]
    end = STAGES[2] * arm.budget
    for i, (model, seconds) in enumerate(_shares(arm, pool, CARRIED, end)):
        name = f"pruning-{i}"
        result = arm.search(
            name, model.module, seconds, techniques=PRUNING, held=HELD, models=CARRIED
        )
        pool += arm.modules(name, result)
    most = CARRIED + 1
    for i, (model, seconds) in enumerate(_shares(arm, pool, most, 0.0)):
        arm.search(
            f"bits-{i}", model.module, seconds, techniques=BITS, held=HELD, models=ENDING // most
        )


def _shares(
    arm: Arm, pool: Sequence[Model], most: int, end: float, least: float = LEAST_SECONDS
) -> Iterable[tuple[Model, float]]:
    """The best of a pool, each with an equal share of the time until ``end`` seconds are left.

    They are ``most``, or fewer, so that each gets ``least`` seconds.
    """
    count = max(1, min(most, int((arm.left - end) / least)))
    chosen = arm.best(pool, count)
    for i, model in enumerate(chosen):
        yield model, (arm.left - end) / (len(chosen) - i)


def uniform_int8(arm: Arm) -> None:
    """Architecture search, then 8 bits in every layer of its networks, the original among them.

    Each is a model in floats and one in 8 bits. They are as many as leave each at least as long to
    be trained as its export takes.
    """
    result = arm.search(
        "architecture", arm.ground.start, (1.0 - UNIFORM) * arm.budget,
        techniques=ARCHITECTURE, models=ENDING // 2,
    )  # fmt: skip
    pool = [*arm.original("architecture"), *arm.modules("architecture", result)]
    for i, (model, seconds) in enumerate(_shares(arm, pool, ENDING // 2, 0.0, 2 * arm.closing)):
        _quantise(arm, model, f"int8-{i}", seconds)


def _quantise(arm: Arm, model: Model, name: str, seconds: float) -> None:
    """Train a network in int8 for its time less that of its export, then export and verify it."""
    began, credit = time.monotonic(), arm.credit
    ground, task = arm.ground, Task()
    example = ground.data.example()[0]
    with arm.getting_ready():
        graph = inspect_model(model.module, (example,))
        elastic = ElasticModel(graph, make_techniques(BITS)).eval()
        teacher = realise(elastic, Candidate())
    evaluator = CandidateEvaluator(
        elastic, ground.data, task, teacher=teacher, checkpoints=arm.folder / name,
        effort=Effort(
            final_steps=30 * len(ground.data.train) // 64, learning_rate=_GENTLE,
            final_seconds=max(0.0, seconds - arm.closing),
        ),
    )  # fmt: skip
    layers = {n: layer for n, layer in graph.layers.items() if layer.calls == 1}
    candidate = uniform(layers, 8, 8)
    trained = evaluator.evaluate(candidate, fidelity=Fidelity.FINAL, seed=ground.seed)
    closing = time.monotonic()
    row = _verified(arm, evaluator.restore(candidate), candidate.id, name)
    arm.rows += [] if row is None else [row]
    arm.searches.append({
        "name": name, "given": seconds, "seconds": time.monotonic() - began,
        "models": 0 if row is None else 1, "steps": trained.train_steps,
        "preparation": arm.credit - credit, "credited": arm.credit - credit,
        "closing": time.monotonic() - closing,
    })  # fmt: skip


def _verified(arm: Arm, prepared: PreparedModel, identifier: str, name: str) -> Row | None:
    """The row of a model in int8 that was exported and is what it claims to be."""
    ground, runtime = arm.ground, load_runtime()
    path = arm.folder / name / "model.onnx"
    export_onnx(prepared.model, prepared.ops, (ground.data.example()[0],), path)
    found = verify_artifact(
        path, runtime=runtime, reference=prepared.model, batches=ground.data.test.batches(64),
        expectations=Expectations(classification=True),
    )  # fmt: skip
    scored = verify_artifact(
        path, runtime=runtime, batches=ground.data.val.batches(64), metric=Task().evaluate
    )
    if not found.ok or not scored.ok:
        print(f"  {name}: left out, {[c.name for c in (*found.failures, *scored.failures)]}")
        return None
    row = {
        "id": identifier, "name": "uniform int8", "size_bytes": path.stat().st_size,
        "val_accuracy": scored.metrics["accuracy"], "macs": sum(op.macs for op in prepared.ops),
        "latency_estimate_ms": LatencyPredictor(ground.profile).estimate(prepared.ops).value,
    }  # fmt: skip
    return arm._row(name, row, path.parent)


ARMS: dict[str, Callable[[Arm], None]] = {
    "joint": joint,
    "staged": staged,
    "uniform": uniform_int8,
    "random": random_joint,
    "architecture": architecture_only,
    "compression": compression_only,
}


def run(folder: Path, seed: int, name: str) -> None:
    """Run one arm, then score its models on the test examples, outside of its time."""
    ground = Ground(folder, seed)
    place = folder / f"seed{seed}" / name
    place.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)  # an arm that was cut off begins anew: time counts
    place.mkdir(parents=True)
    _warm_up(ground)
    before = os.times()
    arm, failure = Arm(ground, place), None
    try:
        ARMS[name](arm)
    except AutocompressError as error:  # what it has found until here counts
        failure = f"{type(error).__name__}: {error}"
        print(f"  {name}: {failure}", flush=True)
    seconds, after = time.monotonic() - arm.began, os.times()
    for row in arm.rows:
        row["accuracy"] = _accuracy(ground, folder / row["path"])
        row["sha256"] = sha256_of(folder / row["path"])
    outcome = {
        "arm": name, "seed": seed, "budget": arm.budget, "seconds": seconds,
        "credit": arm.credit, "cpu_seconds": sum(after[:2]) - sum(before[:2]),
        "threads": torch.get_num_threads(),
        "failure": failure, "searches": arm.searches, "models": arm.rows,
    }  # fmt: skip
    keep_json(place.with_suffix(".json"), outcome)


def _warm_up(ground: Ground) -> None:
    """Load what a first export loads, and the data, so that no arm pays for it."""
    example = ground.data.example()[0]
    _ = ground.start
    model = nn.Sequential(nn.Conv2d(example.shape[1], 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    graph = inspect_model(nn.Sequential(model, nn.Flatten()).eval(), (example,))
    elastic = ElasticModel(graph, ())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        plain = fold_batch_norm(realise(elastic, Candidate()))
        export_onnx(plain, graph.operations(Candidate()), (example,), path)
        verify_artifact(path, reference=plain, batches=ground.data.test.batches(8, limit=8))


def _accuracy(ground: Ground, path: Path) -> float:
    """Share of the test examples that the exported file has right on the runtime."""
    session = load_runtime().load(path, threads=torch.get_num_threads())
    name, right = session.inputs[0].name, 0
    test = ground.loaded.test.subset(ground.protocol.test, seed=0)
    for inputs, targets in test.batches(500):
        answers = session.run({name: inputs.numpy()})[0]
        right += int((np.argmax(answers, axis=1) == targets.numpy()).sum())
    return right / len(test)


def main(arguments: Sequence[str]) -> None:
    folder, seed, name = Path(arguments[0]), int(arguments[1]), arguments[2]
    os.sched_setaffinity(0, {int(core) for core in arguments[3].split(",")})
    if name == "prepare":
        Ground(folder, seed).prepare()
    else:
        run(folder, seed, name)


if __name__ == "__main__":
    main(sys.argv[1:])
