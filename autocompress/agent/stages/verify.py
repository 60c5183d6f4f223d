"""Export every finalist, re-open it, check it, time it; keep what holds, report the rest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import numpy as np
import pandas as pd

from autocompress.agent.artifacts import Artifact, measure_latencies, write_artifact
from autocompress.agent.context import Context
from autocompress.agent.stages.baseline import FP32, finish_row
from autocompress.core.objective import Constraint
from autocompress.core.pareto import non_dominated
from autocompress.errors import AutocompressError

STAGE = "verify"
COLUMNS = (
    "id", "kind", "name", "accuracy", "accuracy_low", "accuracy_high", "val_accuracy",
    "accuracy_drop", "latency_ms", "latency_low_ms", "latency_high_ms", "latency_estimate_ms",
    "latency_estimate_low_ms", "latency_estimate_high_ms", "size_bytes", "size_estimate_bytes",
    "packed_bytes", "macs", "parameters", "peak_memory_bytes", "speedup", "size_ratio",
    "agreement", "changes",
)  # fmt: skip


def run(context: Context) -> None:
    """Writes ``models/``, ``rejected/`` and ``pareto.csv``."""
    artifacts = _export(context)
    verified = [a for a in artifacts if a.ok]
    _time(context, verified)
    reference = context.baselines[FP32]
    for artifact in verified:
        finish_row(artifact.row, reference, context)
    kept = _front(context, [a for a in verified if _holds(context, a)])
    for artifact in artifacts:
        artifact.write_manifest(context)
        if artifact not in kept:
            _reject(context, artifact)
    context.folder.write_json("baseline.json", list(context.baselines.values()))
    rows = sorted((a.row for a in kept), key=_order)
    table = pd.DataFrame([*context.baselines.values(), *rows]).reindex(columns=list(COLUMNS))
    context.folder.write_text("pareto.csv", table.to_csv(index=False))
    context.decide(
        STAGE,
        "verified models",
        f"{len(artifacts)} models were exported and re-opened: {len(kept)} are on the front, "
        f"{sum(a.ok for a in artifacts) - len(kept)} hold but are surpassed or break a bound, "
        f"{sum(not a.ok for a in artifacts)} failed a check.",
        kept=[a.row["id"] for a in kept],
        failed={a.row["id"]: a.failures for a in artifacts if not a.ok},
    )


def _export(context: Context) -> list[Artifact]:
    report = context.progress(STAGE, "models")
    found = []
    for i, candidate in enumerate(context.finalists.values()):
        try:
            prepared = context.evaluator.restore(candidate)
            found.append(write_artifact(context, candidate, prepared, candidate.id))
        except AutocompressError as error:
            context.decide(
                STAGE, "export failed", f"{candidate.id} could not be exported: {error}",
                id=candidate.id,
            )  # fmt: skip
        report(i + 1, len(context.finalists))
    return found


def _time(context: Context, artifacts: Sequence[Artifact]) -> None:
    """Latency of all models and both baselines in turns, so that they can be compared."""
    baselines = [Artifact.of_row(context, row) for row in context.baselines.values()]
    everything = [*baselines, *artifacts]
    for artifact, measured in zip(everything, measure_latencies(context, everything), strict=True):
        artifact.row.update(measured)
    for artifact in baselines:
        finish_row(artifact.row, context.baselines[FP32], context)


def _holds(context: Context, artifact: Artifact) -> bool:
    """Whether the verified model keeps the constraints, as measured where it was measured."""
    broken = [c for c in context.request.constraints if _violation(artifact, c) > 0]
    for constraint in broken:
        artifact.broken.append(
            f"{constraint.metric} is {_value(artifact, constraint.metric):.6g}, "
            f"the bound is {constraint.bound:.6g}"
        )
    return not broken


def _violation(artifact: Artifact, constraint: Constraint) -> float:
    return constraint.violation(_value(artifact, constraint.metric))


def _value(artifact: Artifact, metric: str) -> float:
    row = artifact.row
    if metric == "accuracy_drop":
        return float(row["val_accuracy_drop"])
    if metric == "accuracy":
        return float(row["val_accuracy"])
    if metric == "latency_ms" and row.get("latency_ms") is None:
        metric = "latency_estimate_ms"
    value = row.get(metric)
    return float("nan") if value is None else float(value)


def _front(context: Context, artifacts: list[Artifact]) -> list[Artifact]:
    """Those not surpassed in the objectives; latency counts by its estimate when not measured."""
    if not artifacts:
        return []
    task = context.request.task
    losses = np.array(
        [
            [
                o.loss(
                    task.score(_value(a, o.metric)) if o.metric == "accuracy"
                    else _value(a, o.metric)
                )
                for o in context.request.objectives
            ]
            for a in artifacts
        ]
    )  # fmt: skip
    keep = non_dominated(losses)
    for artifact, kept in zip(artifacts, keep, strict=True):
        if not kept:
            artifact.broken.append("another verified model is at least as good in every objective")
    return [a for a, kept in zip(artifacts, keep, strict=True) if kept]


def _order(row: dict[str, object]) -> tuple[float, float]:
    latency = row.get("latency_ms") or row.get("latency_estimate_ms") or 0.0
    return (float(latency), float(row["size_bytes"]))  # type: ignore[arg-type]


def _reject(context: Context, artifact: Artifact) -> None:
    target = context.folder.rejected / str(artifact.row["id"])
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    shutil.move(artifact.folder, target)
