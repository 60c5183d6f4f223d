"""Choose from another run's evaluations at this device's prices; no search, and no training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from autocompress.agent.bounds import in_words
from autocompress.agent.context import Context
from autocompress.agent.observing import observe
from autocompress.agent.request import TRAINING
from autocompress.agent.selection import first_finalists, is_useful, nearest
from autocompress.agent.stages.elasticise import ELASTIC
from autocompress.agent.stages.price import prices
from autocompress.agent.stages.search import baseline_metrics, open_study, original_score
from autocompress.agent.stages.take_over import TRIALS, store
from autocompress.agent.weights import load_weights
from autocompress.core.budget import Fidelity
from autocompress.core.capabilities import with_storage_forms
from autocompress.core.objective import ACCURACY_DROP, METRICS
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.errors import AutocompressError, InfeasibleError, StorageError
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.evaluator import checkpoint_path, save_model
from autocompress.search.judge import Judge
from autocompress.search.store import read_trials

STAGE = "retarget"
#: Seconds that one model may take when it is trained, over its share of the time.
_PATIENCE = 3600.0
#: What was evaluated stays as it was; everything else is priced anew.
_EVALUATED = {name for name, metric in METRICS.items() if not metric.priced} | {ACCURACY_DROP}


def run(context: Context) -> None:
    """Leaves ``context.finalists``, their weights in the checkpoints, and the trials repriced."""
    if load_weights(context.elastic, context.folder.checkpoints / ELASTIC):
        observe(context)
    context.pricer = prices(context)
    taken_over = len(read_trials(context.folder.path / TRIALS))
    trials = _trials(context)[:taken_over]  # a run that goes on must choose as it did before
    complete = [t for t in trials if t.state == "complete"]
    usable = [t for t in complete if not _left_out(context, t)]
    final = [t for t in usable if t.fidelity == Fidelity.FINAL]
    feasible = [t for t in final if _judge(context, Fidelity.FINAL).feasible(t)]
    finalised = [t for t in feasible if _is_saved(context, t)]
    chosen = first_finalists(
        finalised, context.request.objectives, context.plan.models,
        original=original_score(context, Fidelity.FINAL),
        known=baseline_metrics(context, Fidelity.FINAL),
    )  # fmt: skip
    seconds = context.request.options.get(TRAINING)
    looked_at = {t.candidate.id for t in final}
    others = [t for t in usable if t.candidate.id not in looked_at]
    judge = _judge(context, context.plan.fidelity)
    others = [t for t in others if t.fidelity == context.plan.fidelity and judge.feasible(t)]
    places = context.plan.models - len(chosen)
    wanted = _more(context, others, chosen, places)
    if seconds is None:
        added = _untrained(context, wanted)
    else:
        added = _trained(context, wanted, float(seconds))
    context.finalists = {t.candidate.id: t.candidate for t in (*chosen, *added)}
    _say(context, complete, usable, chosen, added, trained=seconds is not None)
    if not context.finalists and not context.stopping:
        raise _infeasible(context, complete, usable, wanted)


def _trials(context: Context) -> list[TrialRecord]:
    """The other run's trials with this device's prices, and what this run has trained since.

    Raises:
        StorageError: a genome stands for another candidate than it did.
    """
    path = context.folder.path / "study.db"
    if path.is_file():
        return read_trials(path)
    there = read_trials(context.folder.path / TRIALS)
    genomes = [np.array(t.genome, dtype=np.int64) for t in there]
    for trial, genome in zip(there, genomes, strict=True):
        if context.space.decode(genome).id != trial.candidate.id:
            raise StorageError(
                f"trial {trial.number} of the other run stands for another candidate now: it is of "
                "another version or another space; search anew"
            )
    found = [_priced(context, trial, genome) for trial, genome in zip(there, genomes, strict=True)]
    store(path, found)
    return found


def _priced(context: Context, trial: TrialRecord, genome: Genome) -> TrialRecord:
    if trial.state != "complete":
        return trial
    kept = {name: value for name, value in trial.metrics.items() if name in _EVALUATED}
    return replace(trial, metrics={**kept, **context.pricer([genome])[0]})


def _left_out(context: Context, trial: TrialRecord) -> bool:
    """Whether it computes in a precision that this device's profile does not list.

    How a table of rows is stored does not matter: it is made of floats when it is looked up.
    """
    precisions = with_storage_forms(context.profile.capabilities.precisions)
    offered = {(p.weight_bits, p.activation_bits) for p in precisions}
    activations = {a for _, a in offered}
    return any(
        op.activation_bits not in activations
        if op.codebook
        else (op.weight_bits, op.activation_bits) not in offered
        for op in context.space.graph.operations(trial.candidate)
        if op.weight_shape and op.layer is not None and op.kind != "embedding"
    )


def _judge(context: Context, fidelity: Fidelity) -> Judge:
    return Judge(
        context.request.objectives, context.request.bounds,
        {"accuracy": original_score(context, fidelity)},
    )  # fmt: skip


def _is_saved(context: Context, trial: TrialRecord) -> bool:
    return checkpoint_path(context.folder.checkpoints, trial.candidate).is_file()


def _more(
    context: Context, others: Sequence[TrialRecord], chosen: Sequence[TrialRecord], places: int
) -> list[TrialRecord]:
    """Candidates that no run has finalised, for the places that are left."""
    fidelity = context.plan.fidelity
    known = [*baseline_metrics(context, fidelity), *(t.metrics for t in chosen)]
    return first_finalists(
        others, context.request.objectives, places,
        original=original_score(context, fidelity), known=known,
    )  # fmt: skip


def _untrained(context: Context, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that are of use and meet the bounds as the shared weights make them, saved.

    What a short training had given them in the other run is not there: they are judged anew.
    """
    task, fidelity = context.request.task, context.plan.fidelity
    original, judge = original_score(context, fidelity), _judge(context, fidelity)
    split, found = context.evaluator.trial_split(), []
    report = context.progress(STAGE, "candidates")
    for i, trial in enumerate(trials):
        if context.stopping:
            break
        try:
            prepared = context.evaluator.prepare(
                trial.candidate, steps=0, seed=trial.seed, repaired=True
            )
        except (AutocompressError, ArithmeticError, RuntimeError) as error:
            context.decide(
                STAGE, "leave out", f"{trial.candidate.id} could not be prepared: {error}",
                id=trial.candidate.id,
            )  # fmt: skip
            continue
        score = task.score(evaluate_model(prepared.model, split, task))
        now = {**trial.metrics, "accuracy": score, ACCURACY_DROP: original - score}
        if is_useful(score, original) and judge.feasible(replace(trial, metrics=now)):
            save_model(prepared.model, checkpoint_path(context.folder.checkpoints, trial.candidate))
            found.append(trial)
        report(i + 1, len(trials))
    return found


def _trained(context: Context, trials: Sequence[TrialRecord], seconds: float) -> list[TrialRecord]:
    """The same trained in full, each for its share of the time; they are trials of this run."""
    if not trials:
        return []
    share = seconds * context.request.workers / len(trials)
    step, effort = context.plan.step_seconds, context.evaluator.effort
    steps = max(1, int(share / step)) if step > 0 else max(1, effort.final_steps)
    context.evaluator.effort = replace(effort, final_steps=steps, final_seconds=share)
    genomes: list[npt.NDArray[np.int64]] = [np.array(t.genome, dtype=np.int64) for t in trials]
    with open_study(context, share + _PATIENCE, Fidelity.FINAL) as study:
        records = study.evaluate(
            genomes, fidelity=Fidelity.FINAL, origin="retarget",
            should_stop=lambda: context.stopping,
        )  # fmt: skip
    return [r for r in records if r.state == "complete" and _is_saved(context, r)]


def _say(
    context: Context,
    complete: Sequence[TrialRecord],
    usable: Sequence[TrialRecord],
    chosen: Sequence[TrialRecord],
    added: Sequence[TrialRecord],
    *,
    trained: bool,
) -> None:
    out = len(complete) - len(usable)
    left = f"; {out} compute in precisions that its profile does not list" if out else ""
    how = "trained in full" if trained else "with the shared weights as they are"
    context.decide(
        STAGE,
        "choose again",
        f"{len(complete)} evaluations of the other run were priced for {context.profile.id}{left}. "
        f"{len(chosen)} of its finalised models were chosen, and {len(added)} more candidates, "
        f"{how}.",
        finalised=[t.number for t in chosen], added=[t.number for t in added],
        left_out=out, trained=trained and bool(added),
    )  # fmt: skip


def _infeasible(
    context: Context,
    complete: Sequence[TrialRecord],
    usable: Sequence[TrialRecord],
    wanted: Sequence[TrialRecord],
) -> InfeasibleError:
    """What to say when no evaluation of the other run will do here: one message per cause."""
    name = context.profile.id
    if not complete:
        return InfeasibleError("no trial of the other run came to an end; search anew")
    if not usable:
        listed = ", ".join(p.name for p in context.profile.capabilities.precisions)
        return InfeasibleError(
            f"none of the other run's {len(complete)} candidates computes in what {name} offers "
            f"({listed}); search anew for this device"
        )
    if wanted:
        return InfeasibleError(
            f"{len(wanted)} candidates meet what {name} can be priced for, but none of them is of "
            "use within the bounds without training of its own; give time to train "
            "(budget='5m'), or search anew"
        )
    bounds, asked = context.request.bounds, context.request.constraints
    broken = Counter(
        in_words(context.request, constraint)
        for trial in usable
        for constraint, bound in zip(asked, bounds, strict=True)
        if bound.violation(trial.metrics.get(bound.metric, math.nan)) > 0
    )
    said = "; ".join(f"{bound}: broken by {n}" for bound, n in broken.most_common())
    shown = "; ".join(
        ", ".join(f"{b.metric} {_shown(context, t, b.metric):.4g}" for b in bounds)
        for t in nearest(usable, bounds, 3)
    )
    return InfeasibleError(
        f"none of the other run's {len(usable)} candidates that {name} can run meets all bounds "
        f"({said}). Nearest: {shown}. What would help: relax them, or search anew for this device"
    )


def _shown(context: Context, trial: TrialRecord, metric: str) -> float:
    value = float(trial.metrics.get(metric, math.nan))
    return -value if metric == "accuracy" and not context.request.task.higher_is_better else value
