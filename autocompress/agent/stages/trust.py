"""How far inherited accuracy can be trusted: candidates as they are, and trained on their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autocompress.agent.context import Context
from autocompress.agent.fidelity import choose_fidelity, with_fidelity
from autocompress.agent.planner import FEWEST_COMPARED
from autocompress.agent.seeds import neighbours, uniform_seeds
from autocompress.agent.stages.price import prices
from autocompress.agent.stages.search import open_study
from autocompress.agent.trust import (
    POOL,
    Comparison,
    compare,
    gaps_in_words,
    read_comparisons,
    spread_over,
    write_comparison,
)
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate
from autocompress.core.objective import METRICS
from autocompress.core.space import Genome
from autocompress.core.trial import TrialRecord
from autocompress.elastic.drawing import draw
from autocompress.search.feasibility import repair
from autocompress.search.pricing import Price, Pricer
from autocompress.search.study import Study

STAGE = "trust"
#: Recorded as the origin of the trials, after what marks them as chosen.
ORIGIN = "trust"
#: No evaluation may take longer than this many times what the plan expects, nor less than a minute.
_PATIENCE = 20.0
#: Candidates that are looked at for each that is compared: of a kind with the seeds, a few changes
#: away from them, and drawn as in elastic training.
_UNIFORM, _NEAR, _DRAWN = 2, POOL - 4, 2


def run(context: Context) -> None:
    """Leaves the fidelity of the search's trials in the plan, and why in ``trust.json``.

    Evaluations are trials of ``study.db``: those at the fidelity that is chosen are known to the
    search from its beginning.
    """
    plan = context.plan
    if STAGE in read_comparisons(context.folder):
        return
    if not plan.compared:
        fidelity, said = choose_fidelity(plan, context.request.budget, None)
        note = f" The comparison is {plan.compared_note}." if plan.compared_note else ""
        context.decide(STAGE, "no comparison", said + note, fidelity=fidelity.value)
        return
    began = time.monotonic()
    # prices of its own: the search's must not depend on what was asked for here
    price = prices(context)
    genomes = sample(context, price, plan.compared)
    if len(genomes) < FEWEST_COMPARED:
        context.decide(
            STAGE,
            "no comparison",
            f"Only {len(genomes)} different candidates were found within the bounds: too few to "
            "compare inherited with trained accuracy.",
            found=len(genomes),
        )
        return
    comparison = _compared(context, genomes, price)
    if context.stopping:
        return  # what was evaluated is stored; the rest follows when the run is resumed
    _act(context, comparison, time.monotonic() - began)


def sample(context: Context, price: Price, count: int) -> list[Genome]:
    """Different candidates within the bounds, spread over the prices that a search looks at.

    Those of the original's shape are left out where the shared weights were trained by the sandwich
    rule: it is trained at every step, and would flatter the order. Ways of training back stay the
    usual ones. The same seed gives the same candidates.

    Args:
        context: the run.
        price: priced metrics of genomes.
        count: how many are wanted; the first ones are spread, too.
    """
    space, seed = context.space, context.request.seed
    rng = np.random.default_rng([seed, 0x7257])
    pool = [genome for _, genome in uniform_seeds(space)[: _UNIFORM * count]]
    pool += neighbours(space, rng, _NEAR * count)
    pool += [draw(space, rng) for _ in range(_DRAWN * count)]
    recipes = np.array([choice.kind == "recipe" for choice in space.choices])
    pool = _different([np.where(recipes, 0, genome) for genome in pool])
    if context.from_scratch:
        whole = _shape(space.decode(space.original))
        pool = [genome for genome in pool if _shape(space.decode(genome)) != whole]
    pricer = Pricer(price, context.request.bounds)
    broken = [bool(row.any()) for row in pricer.violations(pool)]
    found = [genome for genome, bad in zip(pool, broken, strict=True) if not bad]
    for genome in (g for g, bad in zip(pool, broken, strict=True) if bad):
        if len(found) >= _UNIFORM * count:
            break  # repairing takes many prices
        repaired = repair(space, pricer, genome, rng=rng)
        found = found if repaired is None else _different([*found, repaired])
    metric = _metric(context)
    known = [row.get(metric, 0.0) for row in pricer.metrics(found)]
    chosen = spread_over(known, [_expected_loss(context, g) for g in found], count, rng)
    return [found[i] for i in chosen]


def _different(genomes: Sequence[Genome]) -> list[Genome]:
    return list({genome.tobytes(): genome for genome in genomes}.values())


def _shape(candidate: Candidate) -> tuple[object, ...]:
    """What a candidate keeps of the network, whatever it stores it in."""
    widths = sorted((name, p.width) for name, p in candidate.layers.items() if p.width is not None)
    return (tuple(sorted(candidate.architecture.items())), tuple(widths))


def _metric(context: Context) -> str:
    """The price that candidates are spread over: the first that is an objective."""
    asked = (o.metric for o in context.request.objectives)
    return next((name for name in asked if METRICS[name].priced), "size_bytes")


def _expected_loss(context: Context, genome: Genome) -> float:
    """What its settings lose alone, added up; NaN where nothing is known of settings."""
    if not context.sensitivity:
        return float("nan")
    total = 0.0
    active = context.space.active(genome)
    for i, choice in enumerate(context.space.choices):
        known = context.sensitivity.get(choice.name)
        if known and active[i]:
            total += known.get(int(genome[i]), max(known.values()))
    return total


def _compared(context: Context, genomes: Sequence[Genome], price: Price) -> Comparison:
    """Evaluate each candidate as it is, then trained; what has been evaluated is not again."""
    plan, request = context.plan, context.request
    effort = context.evaluator.effort
    context.evaluator.effort = replace(effort, short_steps=plan.compared_steps)
    expected = plan.seconds.get(STAGE, 0.0)
    limit = max(60.0, _PATIENCE * expected / max(1, 2 * len(genomes)))
    deadline = context.deadline(expected) if plan.seconds else None
    report = context.progress(STAGE, "evaluations")
    try:
        with open_study(context, limit, Fidelity.SHORT, price=price) as study:
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
    fidelities = (Fidelity.INHERITED, Fidelity.SHORT)
    return compare(STAGE, cheap, dear, fidelities, request.task.score, seed=request.seed)


def _act(context: Context, comparison: Comparison, seconds: float) -> None:
    """Choose the fidelity of the search's trials, and write down why."""
    plan, request = context.plan, context.request
    recipes = any(c.kind == "recipe" and len(c.options) > 1 for c in context.space.choices)
    agreement = comparison.agreement
    fidelity, said = choose_fidelity(plan, request.budget, agreement, recipes=recipes)
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
        agreement=agreement.to_json(), candidates=list(comparison.candidates),
        left_out=list(comparison.left_out),
        references=["Bender et al. 2018", "Yu et al. 2020, arXiv:1902.08142"],
    )  # fmt: skip
