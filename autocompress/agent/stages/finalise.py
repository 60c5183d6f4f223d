"""Train the front: each chosen candidate with distillation and quantisation-aware training."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from autocompress.agent.context import Context
from autocompress.agent.selection import first_finalists, nearest, next_finalists
from autocompress.agent.stages.search import (
    LEAST,
    baseline_metrics,
    examples_seen,
    open_study,
    original_score,
)
from autocompress.agent.trust import compare, gaps_in_words, write_comparison
from autocompress.core.budget import Fidelity
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.errors import AutocompressError
from autocompress.evaluation.evaluator import checkpoint_path
from autocompress.search.failures import all_failed

STAGE = "finalise"
#: Rounds in which finalists are chosen; each sees what full training gave in those before it.
ROUNDS = 3
#: Of fewer models nothing is said of how the search's accuracies agree with the final ones.
_FEWEST_TOLD = 4
#: Seconds one finalist may take when the budget sets no time.
_LONGEST = 3600.0
#: Failed trials stay failed: resuming would only say so again.
_ANEW = "Fix it, then search again in another run_dir"


def run(context: Context) -> None:
    """Leaves ``context.finalists``: id to candidate, checkpoints saved."""
    plan = context.plan
    with open_study(context, _LONGEST, plan.fidelity) as study:
        trials = [t for t in study.trials if t.fidelity == plan.fidelity]
        searched = [t for t in trials if study.feasible(t)]
    complete = [t for t in trials if t.state == "complete"]
    if trials and not complete:
        raise all_failed(trials, _ANEW)
    reference = original_score(context, plan.fidelity)
    if searched:
        _spend_what_is_left(context, min(plan.models, len(searched)))
        chosen, trained = _in_rounds(context, searched, reference)
    else:  # training back may bring the nearest within the bounds
        chosen = nearest(complete, context.request.bounds, plan.models)
        _spend_what_is_left(context, len(chosen))
        trained = _train(context, chosen, len(chosen))
    finished = [r for r in trained if r.state == "complete" and _saved(context, r)]
    if trained and not finished:
        raise all_failed(trained, _ANEW)
    context.finalists = {r.candidate.id: r.candidate for r in finished}
    _say_trust(context, chosen, trained)
    context.decide(
        STAGE,
        "train the front",
        (
            f"{len(chosen)} of {len(searched)} feasible trials were chosen in rounds, spread over "
            f"the front that full training was expected to give; "
            if searched
            else f"No trial meets every bound; the nearest {len(chosen)} were chosen; "
        )
        + f"{len(finished)} were trained in full.",
        chosen=[t.number for t in chosen],
        gained=_gains(chosen, finished),
    )


def _say_trust(context: Context, chosen: list[TrialRecord], trained: list[TrialRecord]) -> None:
    """How far the accuracies that the search chose by agree with those after full training."""
    fidelity, request = context.plan.fidelity, context.request
    found = compare(
        STAGE, chosen, trained, (fidelity, Fidelity.FINAL), request.task.score, seed=request.seed,
        examples=examples_seen(context, fidelity, Fidelity.FINAL),
    )  # fmt: skip
    agreement = found.agreement
    if agreement.pairs < _FEWEST_TOLD:
        return
    gaps = gaps_in_words(agreement, share=request.task.metric_is_share)
    sentence = (
        f"Between the search's accuracy ({fidelity.value}) and that after full training of "
        f"{agreement.pairs} models: {agreement.words}; {gaps}. They were chosen from the front, "
        "and the former is of fewer validation examples where there are many."
    )
    write_comparison(context.folder, replace(found, sentence=sentence))
    context.decide(
        STAGE, "compare the search with full training", sentence, agreement=agreement.to_json()
    )


def _spend_what_is_left(context: Context, models: int) -> None:
    """Share the time that earlier stages left among the models to train."""
    plan = context.plan
    if not plan.seconds or not models or context.request.budget.train_steps is not None:
        return
    left = context.remaining(plan.seconds["verify"]) * context.request.workers / models
    if left <= 0:
        return  # nothing new is begun; what must be trained again is trained as it was planned
    steps = max(1, int(left / max(1e-4, plan.step_seconds)))
    steps = min(steps, 4 * plan.effort.final_steps)
    context.evaluator.effort = replace(
        context.evaluator.effort, final_steps=steps, final_seconds=left
    )
    context.decide(
        STAGE,
        "plan again",
        f"{left:.1f} s are left for each of {models} models: up to {steps} steps.",
        seconds=left, steps=steps, planned=plan.effort.final_steps,
    )  # fmt: skip


def _in_rounds(
    context: Context, searched: list[TrialRecord], reference: float
) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Choose and train a third of the models at a time; returns the chosen and the trained."""
    objectives = context.request.objectives
    known = baseline_metrics(context, context.plan.fidelity)
    models = min(context.plan.models, len(searched))
    chosen: list[TrialRecord] = []
    trained: list[TrialRecord] = []
    for number in range(ROUNDS):
        places = math.ceil(models * (number + 1) / ROUNDS) - len(chosen)
        if not chosen:
            more = first_finalists(searched, objectives, places, original=reference, known=known)
        else:
            more = next_finalists(
                searched, chosen, trained, objectives, places, original=reference, known=known
            )
        chosen += more
        trained = _train(context, chosen, models)
        if len(trained) < len(chosen):
            break
    return chosen, trained


def _train(context: Context, chosen: list[TrialRecord], models: int) -> list[TrialRecord]:
    """Train what is chosen and not trained yet; all of it that is trained, fewer if time ends."""
    report = context.progress(STAGE, "models")
    timed = bool(context.plan.seconds)
    reserve = context.plan.seconds.get("verify", 0.0)
    limit = max(120.0, 10 * context.plan.seconds.get(STAGE, _LONGEST))
    genomes = [np.array(t.genome, dtype=np.int64) for t in chosen]
    with open_study(context, limit, Fidelity.FINAL) as study:
        finals = sum(t.fidelity == Fidelity.FINAL for t in study.trials)
        numbers = itertools.count(finals + 1)

        def evaluate(genomes: list[Genome], deadline: float | None) -> list[TrialRecord]:
            return study.evaluate(
                genomes, fidelity=Fidelity.FINAL, origin="front", deadline=deadline,
                on_trial=lambda _: report(next(numbers), models),
                should_stop=lambda: context.stopping,
            )  # fmt: skip

        evaluate(genomes[:LEAST], None)
        return evaluate(genomes, context.deadline(None, reserve) if timed else None)


def _saved(context: Context, record: TrialRecord) -> bool:
    """Whether the finalist's weights are there; when they were lost it is trained once more."""
    path = checkpoint_path(context.folder.checkpoints, record.candidate)
    try:
        load_file(path)
    except (OSError, SafetensorError):
        try:
            context.evaluator.evaluate(record.candidate, fidelity=Fidelity.FINAL, seed=record.seed)
        except AutocompressError as error:
            said, saved = f"could not be trained again: {error}", False
        else:
            said, saved = "was trained again from the same seed", True
        context.decide(
            STAGE, "lost checkpoint",
            f"{path.name} is missing or damaged: {record.candidate.id} {said}.",
            id=record.candidate.id,
        )  # fmt: skip
        return saved
    return True


def _gains(chosen: list[TrialRecord], finished: list[TrialRecord]) -> dict[str, float]:
    """Accuracy gained by full training, by candidate."""
    before = {t.candidate.id: t.metrics["accuracy"] for t in chosen}
    return {
        r.candidate.id: r.metrics["accuracy"] - before[r.candidate.id]
        for r in finished
        if r.candidate.id in before
    }
