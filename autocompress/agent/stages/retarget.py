"""Choose from another run's evaluations at this device's prices; no search, no training."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.selection import USEFUL, first_finalists, nearest
from autocompress.agent.stages.price import prices
from autocompress.agent.stages.search import baseline_metrics, original_score
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import METRICS
from autocompress.core.trial import TrialRecord
from autocompress.errors import AutocompressError, InfeasibleError
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.evaluator import checkpoint_path, save_model
from autocompress.search.judge import Judge
from autocompress.search.pricing import describe
from autocompress.search.store import TrialStore, read_trials

STAGE = "retarget"
#: Seconds for preparing candidates that the other run did not finalise, where nothing is trained.
_PREPARING = 25.0
#: Of an evaluated metric the prices say nothing.
_EVALUATED = tuple(name for name, metric in METRICS.items() if not metric.priced)


def run(context: Context) -> None:
    """Leaves ``context.finalists``, their weights in the checkpoints, and the trials repriced."""
    trials = _trials(context)
    usable = [t for t in trials if t.state == "complete" and not _unsupported(context, t)]
    judges = {f: _judge(context, f) for f in (context.plan.fidelity, Fidelity.FINAL)}
    feasible = [t for t in usable if t.fidelity in judges and judges[t.fidelity].feasible(t)]
    if not feasible:
        raise _infeasible(context, usable)
    finalised = [
        t
        for t in feasible
        if t.fidelity == Fidelity.FINAL
        and checkpoint_path(context.folder.checkpoints, t.candidate).is_file()
    ]
    others = [t for t in feasible if t.fidelity != Fidelity.FINAL]
    objectives, count = context.request.objectives, context.plan.models
    chosen = first_finalists(
        finalised, objectives, count,
        original=original_score(context, Fidelity.FINAL),
        known=baseline_metrics(context, Fidelity.FINAL),
    )  # fmt: skip
    taken = {t.candidate.id for t in chosen}
    more = first_finalists(
        [t for t in others if t.candidate.id not in taken], objectives, 2 * count,
        original=original_score(context, context.plan.fidelity),
        known=[*baseline_metrics(context, context.plan.fidelity), *(t.metrics for t in chosen)],
    )  # fmt: skip
    trained = context.request.budget.seconds is not None
    finish = _train if trained else _prepare
    added = finish(context, more, max(0, count - len(chosen)))
    context.finalists = {t.candidate.id: t.candidate for t in (*chosen, *added)}
    if not context.finalists:
        raise _infeasible(context, usable)
    context.decide(
        STAGE,
        "choose again",
        f"{len(feasible)} of {len(trials)} evaluations of the other run meet the bounds at this "
        f"device's prices; {len(chosen)} of its finalised models were chosen, and {len(added)} "
        + ("candidates trained in full." if trained else "candidates with the shared weights, "
           "untrained."),
        finalised=[t.number for t in chosen], added=[t.number for t in added],
        trained=trained,
    )  # fmt: skip


def _trials(context: Context) -> list[TrialRecord]:
    """The other run's trials with this device's prices, stored as this run's."""
    own = context.folder.path / "study.db"
    if own.is_file() or context.origin is None:
        return read_trials(own)
    context.pricer = prices(context)
    there = read_trials(context.origin.path / "study.db")
    complete = [t for t in there if t.state == "complete"]
    genomes = [np.array(t.genome, dtype=np.int64) for t in complete]
    priced = dict(zip((t.number for t in complete), context.pricer(genomes), strict=True))
    found = [
        replace(
            t,
            metrics={
                **{k: v for k, v in t.metrics.items() if k in _EVALUATED or k == "accuracy_drop"},
                **priced.get(t.number, {}),
            },
        )
        for t in there
    ]
    _store(own, found)
    return found


def _store(path: Path, trials: Iterable[TrialRecord]) -> None:
    """A store that is complete or absent."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.unlink(missing_ok=True)
    with TrialStore(temporary) as store:
        for trial in trials:
            store.append(trial)
    temporary.rename(path)


def _unsupported(context: Context, trial: TrialRecord) -> bool:
    """Whether it computes in a precision that this device's profile does not list."""
    offered = {(p.weight_bits, p.activation_bits) for p in context.profile.capabilities.precisions}
    computed = {
        (op.weight_bits if not op.codebook else min(op.weight_bits, op.activation_bits),
         op.activation_bits)
        for op in context.space.graph.operations(trial.candidate)
        if op.weight_shape
    }  # fmt: skip
    return not computed <= offered


def _judge(context: Context, fidelity: Fidelity) -> Judge:
    return Judge(
        context.request.objectives, context.request.bounds,
        {"accuracy": original_score(context, fidelity)},
    )  # fmt: skip


def _prepare(context: Context, trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """At most ``count`` that are of use as the shared weights make them, their weights saved."""
    limit = time.monotonic() + _PREPARING
    floor = USEFUL * original_score(context, context.plan.fidelity)
    task = context.request.task
    found: list[TrialRecord] = []
    for trial in trials:
        if len(found) >= count or time.monotonic() > limit or context.stopping:
            break
        try:
            prepared = context.evaluator.prepare(
                trial.candidate, steps=0, seed=trial.seed, repaired=True
            )
        except AutocompressError as error:
            _say_failed(context, trial.candidate, error)
            continue
        split = context.evaluator.trial_split()
        if task.score(evaluate_model(prepared.model, split, task)) >= floor:
            path = checkpoint_path(context.folder.checkpoints, trial.candidate)
            save_model(prepared.model, path)
            found.append(trial)
    return found


def _train(context: Context, trials: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """At most ``count``, trained in full within the budget."""
    found: list[TrialRecord] = []
    wanted = trials[:count]
    for i, trial in enumerate(wanted):
        left = context.remaining() / (len(wanted) - i)
        if left <= 0 or context.stopping:
            break
        context.evaluator.effort = replace(context.evaluator.effort, final_seconds=left)
        try:
            context.evaluator.evaluate(trial.candidate, fidelity=Fidelity.FINAL, seed=trial.seed)
        except AutocompressError as error:
            _say_failed(context, trial.candidate, error)
            continue
        found.append(trial)
        context.progress(STAGE, "models")(len(found), len(wanted))
    return found


def _say_failed(context: Context, candidate: Candidate, error: AutocompressError) -> None:
    context.decide(
        STAGE, "leave out", f"{candidate.id} could not be prepared: {error}", id=candidate.id
    )


def _infeasible(context: Context, usable: Sequence[TrialRecord]) -> InfeasibleError:
    """What to say when no evaluation of the other run will do here."""
    if not usable:
        precisions = ", ".join(p.name for p in context.profile.capabilities.precisions)
        return InfeasibleError(
            f"no candidate of the other run computes in what {context.profile.id} offers "
            f"({precisions}); search anew for this device"
        )
    bounds = context.request.bounds
    broken = Counter(
        describe(bound)
        for trial in usable
        for bound in bounds
        if bound.violation(trial.metrics.get(bound.metric, math.nan)) > 0
    )
    if not broken:
        return InfeasibleError(
            f"without training, none of the other run's candidates keeps {USEFUL:.0%} of the "
            "original's accuracy; give a budget to train with"
        )
    said = "; ".join(f"{bound}: broken by {n}" for bound, n in broken.most_common())
    near = nearest(usable, bounds, 3)
    shown = "; ".join(
        ", ".join(f"{b.metric} {t.metrics.get(b.metric, math.nan):.4g}" for b in bounds)
        for t in near
    )
    return InfeasibleError(
        f"none of the other run's {len(usable)} candidates that {context.profile.id} can run meets "
        f"all bounds ({said}). Nearest: {shown}. What would help: relax them, or search anew for "
        "this device"
    )
