"""Capture the model or the space, and say what is left alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from autocompress.agent.context import Context
from autocompress.agent.planner import Costs, Plan, make_plan
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Recipe
from autocompress.core.capabilities import Capabilities
from autocompress.core.space import Genome
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import DataError, RequestError
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.hardware.profiles import load_profile

STAGE = "inspect"


def run(context: Context) -> None:
    """Leaves space, elastic model, teacher, profile, evaluator and plan in the context."""
    request = context.request
    context.profile = load_profile(
        context.folder.device if context.folder.device.is_dir() else request.device
    )
    context.space = _space(context)
    context.elastic = ElasticModel(context.space.graph, context.space.techniques).eval()
    context.teacher = realise(context.elastic, context.space.decode(context.space.original))
    _check_against_data(context)
    context.evaluator = CandidateEvaluator(
        context.elastic, request.data, request.task, effort=Effort(),
        original=context.space.decode(context.space.original),
        teacher=context.teacher, checkpoints=context.folder.checkpoints,
        threads=1,
    )  # fmt: skip
    stored = context.folder.read_json("plan.json")
    if stored is None:
        _report(context)
        context.plan = make_plan(request.budget, _costs(context), workers=request.workers)
        context.folder.write_json("plan.json", context.plan.to_json())
        for sentence in context.plan.sentences:
            context.decide("plan", "spread the budget", sentence, **context.plan.to_json())
    else:
        context.plan = Plan.from_json(stored)
        context.evaluator.threads = context.plan.threads
        torch.set_num_threads(context.plan.threads)
    context.evaluator.effort = context.plan.effort
    context.tell("plan", "note", "plan", {"plan": context.plan.to_json()})


def _space(context: Context) -> ElasticSpace:
    request = context.request
    capabilities = capabilities_for(context)
    techniques = make_techniques(request.techniques)
    subject = request.subject
    if isinstance(subject, ElasticSpace):
        return subject.specialised(techniques, capabilities)
    if isinstance(subject, str):
        classes = request.data.num_classes
        if classes is None:
            raise RequestError(
                f"space {subject!r} builds classifiers, but the data has no class labels; "
                f"give a model of your own for this task"
            )
        return load_space(
            subject, input_shape=request.data.input_shape, num_classes=classes,
            techniques=techniques, capabilities=capabilities, seed=request.seed,
        )  # fmt: skip
    if isinstance(subject, nn.Module):
        example = request.data.example()[0]
        return ElasticSpace.from_model(
            subject, (example,), techniques=techniques, capabilities=capabilities
        )
    raise RequestError(
        f"a space of type {type(subject).__name__} cannot be searched; "
        f"make it with ElasticSpace.from_model, or give its name"
    )


def capabilities_for(context: Context) -> Capabilities:
    """What the device can exploit, given what was asked for."""
    from dataclasses import replace

    asked = {o.metric for o in context.request.objectives}
    asked |= {c.metric for c in context.request.constraints}
    packed = "packed_bytes" in asked or "sparsity" in (context.request.techniques or ())
    return replace(context.profile.capabilities, stores_packed=packed)


def _check_against_data(context: Context) -> None:
    inputs, targets = context.request.data.example(8)
    with torch.no_grad():
        outputs = context.teacher(inputs)
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(
            "the model's outputs on the calibration data hold NaN or infinity; "
            "check its weights and the scale of the inputs"
        )
    context.request.task.check(outputs, targets)


def _costs(context: Context) -> Costs:
    data, task = context.request.data, context.request.task
    model = realise(context.elastic, context.space.decode(context.space.original))
    recipe = Recipe(distillation="none" if context.from_scratch else "response")
    teacher = None if context.from_scratch else context.teacher

    def step_seconds(threads: int) -> float:
        torch.set_num_threads(threads)
        taken = []
        for _ in range(3):
            began = time.monotonic()
            fine_tune(model, data.train, task, recipe=recipe, steps=2, seed=0, teacher=teacher)
            taken.append((time.monotonic() - began) / 2)
        return min(taken)

    step_seconds(1)
    step, threads = _fastest(context, step_seconds)
    torch.set_num_threads(threads)
    context.evaluator.threads = threads
    began = time.monotonic()
    context.evaluator.effort = Effort(val_limit=1000)
    from autocompress.core.budget import Fidelity
    from autocompress.evaluation.evaluator import uniform

    candidate = uniform(list(context.space.graph.layers), 8, 8)
    context.evaluator.evaluate(candidate, fidelity=Fidelity.INHERITED, seed=0)
    typical = _typical_share(context)
    evaluation = (time.monotonic() - began) * max(0.5, typical)
    return Costs(
        step_seconds=step,
        evaluation_seconds=evaluation,
        spent_seconds=context.elapsed,
        typical=typical,
        epoch_steps=max(1, len(data.train) // context.evaluator.effort.batch_size),
        from_scratch=context.from_scratch,
        threads=threads,
    )


def _fastest(context: Context, step_seconds: Callable[[int], float]) -> tuple[float, int]:
    """Seconds of a step, and torch threads: as many as help, where the budget is in seconds.

    On a busy machine two threads can be many times slower than one.
    """
    one = step_seconds(1)
    cores = max(1, (os.cpu_count() or 1) // context.request.workers)
    if cores == 1 or context.request.budget.seconds is None:
        return one, 1
    many = step_seconds(cores)
    threads = cores if many < 0.8 * one else 1
    context.decide(
        STAGE,
        "torch threads",
        f"A training step takes {one * 1e3:.0f} ms with one thread and {many * 1e3:.0f} ms with "
        f"{cores}: {threads} thread{'s' if threads > 1 else ''} will be used.",
        one=one, many=many, cores=cores,
    )  # fmt: skip
    return min(one, many), threads


def _typical_share(context: Context) -> float:
    """Multiply-accumulates of candidates as a search visits them, relative to the original."""
    from autocompress.agent.seeds import neighbours

    space = context.space
    rng = np.random.default_rng([context.request.seed, 0x7A9])

    def macs(genome: Genome) -> int:
        return sum(op.macs for op in space.graph.operations(space.decode(genome)))

    found = [macs(genome) for genome in neighbours(space, rng, 24)]
    # a step has fixed costs too: no candidate is cheaper than a fifth
    share = sum(found) / len(found) / macs(space.original)
    return min(1.0, max(0.2, share))


def _report(context: Context) -> None:
    graph, space = context.space.graph, context.space
    context.folder.write_json("graph.json", graph.to_json())
    parameters = sum(layer.parameters for layer in graph.layers.values())
    macs = sum(op.macs for op in graph.operations(space.decode(space.original)))
    context.decide(
        STAGE,
        "space",
        f"{space.name}: {len(graph.layers)} layers, {parameters:,} weights, "
        f"{macs / 1e6:.1f} million multiply-accumulates; {len(space.choices)} choices, "
        f"10^{space.log10_size:.0f} candidates.",
        choices={c.name: list(c.options) for c in space.choices},
        techniques=[t.name for t in space.techniques],
    )
    for skipped in graph.skipped:
        context.decide(
            STAGE, "leave alone", f"{skipped.name}: {skipped.reason}.", name=skipped.name
        )
    for note in context.request.data.notes:
        context.decide(STAGE, "data", f"Data: {note}.")
