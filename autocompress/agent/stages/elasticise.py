"""Train the shared weights so that candidates are comparable without training of their own."""

from __future__ import annotations

import time

import torch

from autocompress.agent.context import Context
from autocompress.agent.observing import observe
from autocompress.agent.stages.baseline import FROM_SCRATCH_RATE
from autocompress.agent.weights import load_weights
from autocompress.compression.distillation.terms import output_loss
from autocompress.core.candidate import Recipe
from autocompress.elastic.training import ElasticTraining, train_elastic
from autocompress.evaluation.evaluator import save_tensors

STAGE = "elasticise"
ELASTIC = "elastic.safetensors"
#: The same training, and how it goes on, while it is not done.
PARTIAL = "elastic-training.safetensors"


def run(context: Context) -> None:
    """Train by the sandwich rule when the plan pays for it; otherwise say why not."""
    path = context.folder.checkpoints / ELASTIC
    if load_weights(context.elastic, path):
        observe(context)
        return
    if context.plan.elastic_steps == 0:
        context.decide(
            STAGE,
            "no elastic training",
            "The model is trained already: candidates start from its own weights and are trained "
            "briefly one by one, which this budget pays for better than training all at once.",
        )
        return
    task = context.request.task
    temperature = Recipe().temperature

    def distillation(outputs: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        return output_loss(outputs, guide, temperature, classification=task.gives_logits)

    timed = bool(context.plan.seconds)
    limit = context.deadline(context.plan.seconds.get(STAGE)) if timed else None
    report = context.progress(STAGE, "training steps")
    data, seed = context.request.data, context.request.seed
    batch = context.plan.effort.batch_size
    steps = train_elastic(
        context.elastic,
        context.space,
        lambda epoch: data.train.batches(batch, shuffle=True, seed=seed * 7919 + epoch),
        task.loss,
        distillation,
        steps=context.plan.elastic_steps,
        seed=seed,
        teacher=context.teacher,
        deadline=lambda: context.stopping or (limit is not None and time.monotonic() > limit),
        settings=ElasticTraining(
            learning_rate=FROM_SCRATCH_RATE, bfloat16=context.plan.effort.bfloat16
        ),
        progress=lambda step, value: report(step, context.plan.elastic_steps),
        checkpoint=context.folder.checkpoints / PARTIAL,
    )
    if context.stopping:
        return
    save_tensors(context.elastic.weights.state_dict(), path)
    (context.folder.checkpoints / PARTIAL).unlink(missing_ok=True)
    observe(context)
    context.decide(
        STAGE,
        "elastic training",
        f"The shared weights were trained for {steps} steps, each on the largest, the smallest and "
        f"a random candidate.",
        steps=steps,
    )
