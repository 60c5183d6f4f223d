"""Train the front: each chosen candidate with distillation and quantisation-aware training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.selection import choose_finalists
from autocompress.agent.stages.search import open_study
from autocompress.core.budget import Fidelity
from autocompress.core.trial import TrialRecord

STAGE = "finalise"
#: Seconds one finalist may take when the budget sets no time.
_LONGEST = 3600.0


def run(context: Context) -> None:
    """Leaves ``context.finalists``: id to candidate, checkpoints saved."""
    plan = context.plan
    with open_study(context, _LONGEST) as study:
        searched = [
            t
            for t in study.trials
            if t.fidelity == plan.fidelity and t.state == "complete" and study.feasible(t)
        ]
    chosen = choose_finalists(searched, context.request.objectives, plan.models)
    _spend_what_is_left(context, len(chosen))
    finished = _train(context, chosen)
    context.finalists = {r.candidate.id: r.candidate for r in finished}
    context.decide(
        STAGE,
        "train the front",
        f"{len(chosen)} of {len(searched)} feasible trials were chosen, spread over the front; "
        f"{len(finished)} were trained in full.",
        chosen=[t.number for t in chosen],
        gained=_gains(chosen, finished),
    )


def _spend_what_is_left(context: Context, models: int) -> None:
    """Share the time that earlier stages left among the models to train."""
    plan = context.plan
    if not plan.seconds or not models:
        return
    left = context.remaining(plan.seconds["verify"]) * context.request.workers / models
    steps = max(1, int(left / max(1e-4, plan.step_seconds)))
    steps = min(steps, 4 * plan.effort.final_steps)
    context.evaluator.effort = replace(
        context.evaluator.effort, final_steps=steps, final_seconds=max(0.0, left)
    )
    context.decide(
        STAGE,
        "plan again",
        f"{max(0.0, left):.1f} s are left for each of {models} models: up to {steps} steps.",
        seconds=left, steps=steps, planned=plan.effort.final_steps,
    )  # fmt: skip


def _train(context: Context, chosen: list[TrialRecord]) -> list[TrialRecord]:
    report = context.progress(STAGE, "models")
    done: list[TrialRecord] = []

    def on_trial(record: TrialRecord) -> None:
        done.append(record)
        report(len(done), len(chosen))

    timed = bool(context.plan.seconds)
    reserve = context.plan.seconds.get("verify", 0.0)
    limit = max(120.0, 10 * context.plan.seconds.get(STAGE, _LONGEST))
    with open_study(context, limit) as study:
        records = study.evaluate(
            [np.array(t.genome, dtype=np.int64) for t in chosen],
            fidelity=Fidelity.FINAL,
            origin="front",
            deadline=context.deadline(None, reserve) if timed else None,
            on_trial=on_trial,
            should_stop=lambda: context.stopping,
        )
    return [r for r in records if r.state == "complete"]


def _gains(chosen: list[TrialRecord], finished: list[TrialRecord]) -> dict[str, float]:
    """Accuracy gained by full training, by candidate."""
    before = {t.candidate.id: t.metrics["accuracy"] for t in chosen}
    return {
        r.candidate.id: r.metrics["accuracy"] - before[r.candidate.id]
        for r in finished
        if r.candidate.id in before
    }
