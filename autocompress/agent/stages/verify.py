"""Export every finalist, re-open it, check it, time it; keep what holds, report the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from autocompress.agent.artifacts import (
    Artifact,
    measure_latencies,
    move,
    remove,
    write_artifact,
)
from autocompress.agent.bounds import broken, certain, infeasible, not_proven, score
from autocompress.agent.context import Context
from autocompress.agent.figures import Row
from autocompress.agent.stages.baseline import FP32, finish_row
from autocompress.agent.stages.price import refine_table
from autocompress.agent.wholeness import TABLE, model_is_whole, results_are_whole
from autocompress.core.files import writing
from autocompress.core.pareto import non_dominated
from autocompress.errors import AutocompressError, VerificationError
from autocompress.export.verification import Check
from autocompress.search.pricing import describe

STAGE = "verify"
#: A file may be this much larger than its estimate, and by so many bytes.
SIZE_TOLERANCE, SIZE_SLACK = 1.15, 4096
#: An estimate this much below the original's is a claim to be faster.
FASTER = 0.9
COLUMNS = (
    "id", "kind", "name", "accuracy", "accuracy_low", "accuracy_high", "val_accuracy",
    "accuracy_drop", "latency_ms", "latency_low_ms", "latency_high_ms", "latency_estimate_ms",
    "latency_estimate_low_ms", "latency_estimate_high_ms", "size_bytes", "size_estimate_bytes",
    "packed_bytes", "macs", "parameters", "peak_memory_bytes", "speedup", "size_ratio",
    "energy_mj", "agreement", "not_proven", "changes",
)  # fmt: skip


def run(context: Context) -> None:
    """Writes ``models/``, ``rejected/`` and ``pareto.csv``, which is there when all is done."""
    if _done(context):
        context.tell(STAGE, "note", "all finalists were verified before")
        return
    refine_table(context)
    artifacts = _export(context)
    verified = [a for a in artifacts if a.ok]
    _time(context, verified)
    reference = context.baselines[FP32]
    for artifact in verified:
        finish_row(artifact.row, reference, context)
        artifact.checks = (*artifact.checks, *claims(artifact.row, reference))
    verified = [a for a in verified if a.ok]
    holding = [a for a in verified if _holds(context, a)]
    kept = _front(context, holding)
    expected = not_proven(context.request, context.profile)
    for artifact in artifacts:
        artifact.row["not_proven"] = ", ".join(c.metric for c in expected)
    _publish(context, artifacts, kept)
    context.folder.write_json("baseline.json", list(context.baselines.values()))
    rows = sorted((a.row for a in kept), key=_order)
    table = pd.DataFrame([*context.baselines.values(), *rows]).reindex(columns=list(COLUMNS))
    context.folder.write_text(TABLE, table.to_csv(index=False))
    context.decide(
        STAGE,
        "verified models",
        f"{len(artifacts)} models were exported and re-opened: {len(kept)} are on the front, "
        f"{sum(a.ok for a in artifacts) - len(kept)} hold but are surpassed or break a bound, "
        f"{sum(not a.ok for a in artifacts)} failed a check.",
        kept=[a.row["id"] for a in kept],
        failed={a.row["id"]: a.failures for a in artifacts if not a.ok},
    )
    if kept and expected:
        context.decide(
            STAGE,
            "expected, not proven",
            f"The profile of {context.profile.id} is {context.profile.kind}: that the {len(kept)} "
            f"models meet {' and '.join(map(describe, expected))} is expected, not proven; measure "
            "one on the device.",
            metrics=[c.metric for c in expected],
        )
    if verified and not holding and not context.stopping:
        raise infeasible(context.request, [a.row for a in verified])
    if holding and not kept:
        context.decide(
            STAGE,
            "nothing better",
            "Nothing was found that beats the original or its uniform int8 in any objective: "
            "use one of those, or give a larger budget.",
        )
    if context.finalists and not verified:
        raise _none_holds(context, artifacts)


def claims(row: Row, reference: Row) -> list[Check]:
    """Whether a model is as small, and faster than the original, as its estimates say."""
    size, promised = row["size_bytes"], row["size_estimate_bytes"]
    limit = SIZE_TOLERANCE * promised + SIZE_SLACK
    checks = [
        Check("size", size <= limit, size, limit, f"{size:,} bytes; {promised:,} were estimated")
    ]
    measured, original = row.get("latency_ms"), reference.get("latency_ms")
    estimate, base = row.get("latency_estimate_ms"), reference.get("latency_estimate_ms")
    if measured and original and estimate and base and estimate < FASTER * base:
        checks.append(
            Check(
                "faster", measured < original, measured, original,
                f"{measured:.4g} ms; the original takes {original:.4g} ms",
            )
        )  # fmt: skip
    return checks


def _done(context: Context) -> bool:
    """Whether just these finalists were verified by an earlier process, and are untouched."""
    folder = context.folder
    rejected = list(folder.rejected.glob("*"))
    names = {model.name for model in (*folder.models.glob("*"), *rejected)}
    if names != {*context.finalists, *context.baselines}:
        return False
    if len(list(folder.models.glob("*"))) == len(context.baselines):
        return False  # none is on the front, which is to be said again
    return results_are_whole(folder) and all(map(model_is_whole, rejected))


def _publish(context: Context, artifacts: list[Artifact], kept: list[Artifact]) -> None:
    """Put every model, and nothing else, where it belongs; the table is gone meanwhile."""
    folder = context.folder
    with writing(folder.path / TABLE):
        (folder.path / TABLE).unlink(missing_ok=True)
    for artifact in artifacts:
        artifact.write_manifest(context)
    for stale in (*folder.models.glob("*"), *folder.rejected.glob("*")):
        if stale.parent == folder.rejected or stale.name not in context.baselines:
            remove(stale)
    for artifact in artifacts:
        move(artifact, folder.models if artifact in kept else folder.rejected)
    remove(folder.staging)


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
        artifact.refresh_manifest()


def _holds(context: Context, artifact: Artifact) -> bool:
    """Whether the verified model keeps the constraints, as surely as it was measured."""
    request, row = context.request, artifact.row
    for constraint in (found := broken(request, row)):
        artifact.broken.append(
            f"{constraint.metric} is {certain(row, constraint.metric):.6g}, "
            f"the bound is {constraint.bound:.6g}"
        )
    return not found


def _none_holds(context: Context, artifacts: Sequence[Artifact]) -> VerificationError:
    reasons = Counter(reason for a in artifacts for reason in a.failures)
    common = reasons.most_common(1)[0][0] if reasons else "none could be exported"
    return VerificationError(
        f"none of the {len(context.finalists)} models is what it claims to be ({common}); see "
        f"{context.folder.path / 'decisions.jsonl'}"
    )


def _front(context: Context, artifacts: list[Artifact]) -> list[Artifact]:
    """Those that neither another model nor a baseline surpasses in the objectives.

    At least as accurate is what is so on the validation examples, by which the search chose, and on
    the test examples: where the two disagree, neither model is known to be the more accurate. Test
    examples can keep a model here; they never prefer one (``SearchResult.best``). Baselines that
    break a constraint are out of the contest, as models are. Latency counts by its estimate when
    not measured.
    """
    if not artifacts:
        return []
    allowed = [r for r in context.baselines.values() if not broken(context.request, r)]
    rows = [*allowed, *(a.row for a in artifacts)]
    keep = non_dominated([_losses(context, row) for row in rows])[len(allowed) :]
    for artifact, kept in zip(artifacts, keep, strict=True):
        if not kept:
            artifact.broken.append(
                "a baseline or another verified model is at least as good in every objective"
            )
    return [a for a, kept in zip(artifacts, keep, strict=True) if kept]


def _losses(context: Context, row: Row) -> list[float]:
    """One loss an objective, and of accuracy one for each split."""
    request = context.request
    found = [o.loss(score(request, row, o.metric)) for o in request.objectives]
    return found + [
        o.loss(request.task.score(row[o.metric]))
        for o in request.objectives
        if o.metric == "accuracy"
    ]


def _order(row: dict[str, object]) -> tuple[float, float]:
    latency = row.get("latency_ms") or row.get("latency_estimate_ms") or 0.0
    return (float(latency), float(row["size_bytes"]))  # type: ignore[arg-type]
