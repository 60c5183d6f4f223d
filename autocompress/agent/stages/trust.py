"""How far inherited accuracy can be trusted: candidates as they are, and trained on their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.fidelity import Levels, choose_fidelity, with_fidelity
from autocompress.agent.planner import FEWEST_COMPARED
from autocompress.agent.stages.price import prices
from autocompress.agent.stages.search import examples_seen, open_study, original_score
from autocompress.agent.trust import (
    Comparison,
    compare,
    gaps_in_words,
    read_comparisons,
    write_comparison,
)
from autocompress.agent.trust_sample import sample
from autocompress.core.budget import Fidelity
from autocompress.core.objective import ACCURACY_DROP
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.search.pricing import Price
from autocompress.search.study import Study

STAGE = "trust"
#: Recorded as the origin of the trials, after what marks them as chosen.
ORIGIN = "trust"
#: What is written in the log where there is no comparison.
_NONE = "no comparison"
#: No evaluation may take longer than this many times what the plan expects, nor less than a minute.
_PATIENCE = 20.0
#: Share of the stage's time in which candidates are sought.
_SAMPLING = 0.25


def run(context: Context) -> None:
    """Leaves the fidelity of the search's trials in the plan, and why in ``trust.json``.

    Evaluations are trials of ``study.db``: those at the fidelity that is chosen are known to the
    search from its beginning.
    """
    plan = context.plan
    if STAGE in read_comparisons(context.folder) or context.log.holds(STAGE, _NONE):
        return
    if not plan.compared:
        fidelity, said = choose_fidelity(plan, context.request.budget, None)
        note = f" The comparison is {plan.compared_note}." if plan.compared_note else ""
        context.decide(STAGE, _NONE, said + note, fidelity=fidelity.value)
        return
    began = time.monotonic()
    comparison = _compared(context)
    if context.stopping:
        return  # what was evaluated is stored; the rest follows when the run is resumed
    if comparison is not None:
        _act(context, comparison, time.monotonic() - began)


def _prices(context: Context) -> Price:
    """The search's own prices where it is timed anyway: it will ask for many of them again.

    Otherwise fresh ones: the search's must not depend on what was asked for here. Prices of packed
    files are fresh in any case: the weights may have been trained since they were last counted.
    """
    return context.pricer if context.plan.seconds and not context.wants_packed else prices(context)


def _compared(context: Context) -> Comparison | None:
    """Evaluate each candidate as it is, then trained; what has been evaluated is not again.

    None where there are too few to compare, which is then written down.
    """
    plan, request = context.plan, context.request
    expected = plan.seconds.get(STAGE, 0.0)
    # from here on everything counts, the search for candidates included
    deadline = context.deadline(expected) if plan.seconds else None
    sampling = context.deadline(_SAMPLING * expected) if plan.seconds else None
    limit = max(60.0, _PATIENCE * expected / max(1, 2 * plan.compared))
    effort, price = context.evaluator.effort, _prices(context)
    context.evaluator.effort = replace(effort, short_steps=plan.compared_steps)
    report = context.progress(STAGE, "evaluations")
    try:
        with open_study(context, limit, Fidelity.SHORT, price=price) as study:
            uniformly = not study.strategy.takes_seeds
            genomes = sample(context, price, plan.compared, uniformly=uniformly, deadline=sampling)
            if len(genomes) < FEWEST_COMPARED:
                _say_too_few(context, len(genomes))
                return None
            known = sum(t.origin.endswith(f":{ORIGIN}") for t in study.trials)

            def on_trial(record: TrialRecord) -> None:
                nonlocal known
                known += 1
                report(known, 2 * len(genomes))

            def evaluate(study: Study, some: Sequence[Genome], at: Fidelity) -> list[TrialRecord]:
                return study.evaluate(
                    some, fidelity=at, origin=ORIGIN, deadline=deadline, on_trial=on_trial,
                    should_stop=lambda: context.stopping,
                )  # fmt: skip

            cheap = evaluate(study, genomes, Fidelity.INHERITED)
            usable = [np.array(t.genome, dtype=np.int64) for t in cheap if t.state == "complete"]
            dear = evaluate(study, usable, Fidelity.SHORT)
    finally:
        context.evaluator.effort = effort
    pair = (Fidelity.INHERITED, Fidelity.SHORT)
    return compare(
        STAGE, cheap, dear, pair, request.task.score, seed=request.seed,
        asked=[context.space.decode(genome) for genome in genomes],
        examples=examples_seen(context, *pair),
    )  # fmt: skip


def _say_too_few(context: Context, found: int) -> None:
    fidelity, said = choose_fidelity(context.plan, context.request.budget, None)
    time_left = ", and in their share of the time" if context.plan.seconds else ""
    context.decide(
        STAGE,
        _NONE,
        f"{found} different candidates were found within the bounds{time_left}: fewer than the "
        f"{FEWEST_COMPARED} that inherited and trained accuracy are compared of. {said}",
        found=found, fidelity=fidelity.value,
    )  # fmt: skip


def _levels(context: Context, comparison: Comparison) -> Levels:
    score = context.request.task.score
    return Levels.of(
        [score(float(row["before"])) for row in comparison.candidates],
        [score(float(row["after"])) for row in comparison.candidates],
        original_score(context, comparison.after),
    )


def _act(context: Context, comparison: Comparison, seconds: float) -> None:
    """Choose the fidelity of the search's trials, and write down why."""
    plan, request = context.plan, context.request
    recipes = any(c.kind == "recipe" and len(c.options) > 1 for c in context.space.choices)
    bounded = any(c.metric in ("accuracy", ACCURACY_DROP) for c in request.bounds)
    agreement, levels = comparison.agreement, _levels(context, comparison)
    fidelity, said = choose_fidelity(
        plan, request.budget, agreement, levels=levels, recipes=recipes, bounded=bounded
    )
    name = "before" if fidelity == Fidelity.INHERITED else "after"
    taken = [float(row[f"seconds_{name}"]) for row in comparison.candidates]
    if taken:
        reserve = sum(plan.seconds.get(stage, 0.0) for stage in ("finalise", "verify"))
        left = context.remaining(reserve) if plan.seconds else 0.0
        context.plan = with_fidelity(
            plan, fidelity, request.budget, trial_seconds=sum(taken) / len(taken), left=left,
            workers=request.workers,
        )  # fmt: skip
        context.evaluator.effort = context.plan.effort
        context.folder.write_json("plan.json", context.plan.to_json())
    gaps = gaps_in_words(agreement, share=request.task.metric_is_share)
    sentence = (
        f"{agreement.pairs} candidates were evaluated as they are and after {plan.compared_steps} "
        f"training steps of their own: {gaps}. {said}"
    )
    if comparison.left_out:
        named = "; ".join(f"{row['id']} ({row['reason']})" for row in comparison.left_out)
        sentence += f" Left out: {named}."
    write_comparison(context.folder, replace(comparison, sentence=sentence, fidelity=fidelity))
    context.decide(
        STAGE,
        "compare inherited with trained accuracy",
        sentence,
        fidelity=fidelity.value, trials=context.plan.trials, seconds=seconds,
        agreement=agreement.to_json(), levels=asdict(levels),
        candidates=list(comparison.candidates), left_out=list(comparison.left_out),
        references=["Bender et al. 2018", "Yu et al. 2020, arXiv:1902.08142"],
    )  # fmt: skip
