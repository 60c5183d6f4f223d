"""What a training step and an evaluation cost here, measured before anything is planned."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import numpy as np
import torch

from autocompress.agent.context import Context
from autocompress.agent.planner import VAL_LIMIT, Costs
from autocompress.agent.seeds import neighbours
from autocompress.compression.distillation.terms import output_loss
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Recipe
from autocompress.core.cores import usable_cores
from autocompress.core.space import Genome
from autocompress.elastic.realise import realise
from autocompress.elastic.training import ElasticTraining, train_elastic
from autocompress.evaluation.evaluator import Effort, uniform
from autocompress.evaluation.fine_tune import fine_tune

STAGE = "plan"
#: Another way of computing is taken only when it is clearly faster.
_CLEARLY = 0.85
#: A fake-quantised step, relative to a float32 one of the same model.
_QUANTIZED_COST = 1.3
#: Steps of elastic training that are timed, and the seconds that they may take.
_ELASTIC_STEPS, _MOST_SECONDS = 6, 3.0


def measure_costs(context: Context) -> Costs:
    """Time a training step in the ways that are open here, and one evaluation.

    With a budget in seconds the fastest number of torch threads and number format are chosen.
    Otherwise one thread and float32 are, so that results do not depend on the machine's speed.
    """
    threads, bfloat16, step = 1, False, _step_seconds(context, 1, False)
    tried = {"1 thread, float32": step}
    if context.request.budget.seconds is not None:
        if _has_bfloat16():
            taken = tried["1 thread, bfloat16"] = _step_seconds(context, 1, True)
            if taken < _CLEARLY * step:
                bfloat16, step = True, taken
        cores = max(1, usable_cores() // context.request.workers)
        if cores > 1:
            taken = tried[f"{cores} threads"] = _step_seconds(context, cores, bfloat16)
            if taken < _CLEARLY * step:
                threads, step = cores, taken
        said = ", ".join(f"{seconds * 1e3:.0f} ms with {how}" for how, seconds in tried.items())
        context.decide(
            STAGE,
            "way of computing",
            f"A training step of the original takes {said}: {threads} thread"
            f"{'s' if threads > 1 else ''}, {'bfloat16' if bfloat16 else 'float32'}.",
            **tried,
        )
    torch.set_num_threads(threads)
    context.evaluator.threads = threads
    typical = _typical_share(context)
    timed = context.from_scratch and context.request.budget.seconds is not None
    return Costs(
        step_seconds=step,
        quantized_step_seconds=_QUANTIZED_COST * (tried["1 thread, float32"] if bfloat16 else step),
        evaluation_seconds=_evaluation_seconds(context) * max(0.5, typical),
        spent_seconds=context.elapsed,
        typical=typical,
        epoch_steps=max(1, len(context.request.data.train) // Effort().batch_size),
        from_scratch=context.from_scratch,
        elastic_step_seconds=_elastic_step_seconds(context, bfloat16) if timed else None,
        threads=threads,
        bfloat16=bfloat16,
    )


def _step_seconds(context: Context, threads: int, bfloat16: bool) -> float:
    """Seconds of one training step of the original; the best of a few after a first one."""
    torch.set_num_threads(threads)
    model = realise(context.elastic, context.space.decode(context.space.original))
    recipe = Recipe(distillation="none" if context.from_scratch else "response")
    ends: list[float] = [time.monotonic()]

    def note(step: int, loss: float) -> None:
        ends.append(time.monotonic())

    limit = time.monotonic() + 3.0
    fine_tune(
        model, context.request.data.train, context.request.task, recipe=recipe, steps=8, seed=0,
        teacher=None if context.from_scratch else context.teacher, bfloat16=bfloat16,
        deadline=lambda: len(ends) > 2 and time.monotonic() > limit, progress=note,
    )  # fmt: skip
    taken = np.diff(ends)
    return float(np.min(taken[1:] if len(taken) > 1 else taken))


def _elastic_step_seconds(context: Context, bfloat16: bool) -> float:
    """Seconds of one step of elastic training, on a copy of the weights; the best of a few.

    What candidates of few bits or low rank cost is in no proportion to what they multiply. Rather
    too few seconds than too many: where steps turn out slower, time sets the training's pace, but
    steps that were not planned are not done.
    """
    task, effort = context.request.task, Effort()
    ends: list[float] = [time.monotonic()]
    train_elastic(
        copy.deepcopy(context.elastic), context.space,
        lambda epoch: context.request.data.train.batches(
            effort.batch_size, shuffle=True, seed=epoch
        ),
        task.loss,
        lambda outputs, guide: output_loss(
            outputs, guide, Recipe().temperature, classification=task.gives_logits
        ),
        steps=_ELASTIC_STEPS, seed=0, teacher=context.teacher,
        settings=ElasticTraining(bfloat16=bfloat16, growing=0.0),
        deadline=lambda: len(ends) > 2 and time.monotonic() > ends[0] + _MOST_SECONDS,
        progress=lambda step, loss: ends.append(time.monotonic()),
    )  # fmt: skip
    return float(np.min(np.diff(ends)))


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _evaluation_seconds(context: Context) -> float:
    """Seconds of one evaluation without training, in int8."""
    context.evaluator.effort = replace(context.evaluator.effort, val_limit=VAL_LIMIT)
    candidate = uniform(context.space.graph.layers, 8, 8)
    began = time.monotonic()
    context.evaluator.evaluate(candidate, fidelity=Fidelity.INHERITED, seed=0)
    return time.monotonic() - began


def _typical_share(context: Context) -> float:
    """Multiply-accumulates of candidates as a search visits them, relative to the original."""
    space = context.space
    rng = np.random.default_rng([context.request.seed, 0x7A9])

    def macs(genome: Genome) -> int:
        return sum(op.macs for op in space.graph.operations(space.decode(genome)))

    found = [macs(genome) for genome in neighbours(space, rng, 24)]
    share = sum(found) / len(found) / macs(space.original)
    # a step has fixed costs too: no candidate is cheaper than a fifth
    return min(1.0, max(0.2, share))
