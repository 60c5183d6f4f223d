"""Train the shared weights so that candidates are comparable without training of their own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from autocompress.agent.context import Context
from autocompress.agent.observing import observe
from autocompress.agent.stages.baseline import FROM_SCRATCH_RATE
from autocompress.agent.weights import load_weights
from autocompress.compression.distillation.terms import output_loss
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Candidate, Recipe
from autocompress.elastic.drawing import draw
from autocompress.elastic.training import ElasticTraining, train_elastic
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort, save_tensors

STAGE = "elasticise"
ELASTIC = "elastic.safetensors"
#: The same training, and how it goes on, while it is not done.
PARTIAL = "elastic-training.safetensors"
#: Candidates that are scored while it goes on, none of them as small as can be; on how many
#: examples, and with statistics from how many.
_SCORED, _SCORED_REACH, _SCORED_EXAMPLES, _SCORED_STATISTICS = 6, 0.75, 500, 256
#: Share of the stage's time that scoring may take, and how often it is worth doing.
_SCORING_SHARE, _LEAST_CHECKS, _MOST_CHECKS = 0.05, 10, 20


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

    limit = context.deadline(context.plan.seconds.get(STAGE)) if context.plan.seconds else None
    report = context.progress(STAGE, "training steps")
    data, seed = context.request.data, context.request.seed
    batch = context.plan.effort.batch_size
    score, checks = _score(context)
    done = train_elastic(
        context.elastic,
        context.space,
        lambda epoch: data.train.batches(batch, shuffle=True, seed=seed * 7919 + epoch),
        task.loss,
        distillation,
        steps=context.plan.elastic_steps,
        seed=seed,
        teacher=context.teacher,
        deadline=lambda: context.stopping,
        seconds=None if limit is None else limit - time.monotonic(),
        settings=ElasticTraining(
            learning_rate=FROM_SCRATCH_RATE, bfloat16=context.plan.effort.bfloat16, checks=checks
        ),
        progress=lambda step, value: report(step, context.plan.elastic_steps),
        score=score,
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
        f"The shared weights were trained for {done.steps} steps, each on the largest and "
        f"{ElasticTraining().drawn} drawn candidates."
        + (
            " The end was brought forward: candidates had stopped getting better."
            if done.ended_early
            else ""
        ),
        steps=done.steps,
        ended_early=done.ended_early,
    )


def _score(context: Context) -> tuple[Callable[[], float] | None, int]:
    """What scores a fixed sample of candidates, and how often; None where it would take too long.

    Nor is there one with a budget that counts trials, whose trainings are short.
    """
    seconds = context.plan.seconds.get(STAGE, 0.0)
    if not seconds:
        return None, 0
    rng = np.random.default_rng([context.request.seed, 0x5C0E])
    candidates = [
        context.space.decode(draw(context.space, rng, reach=_SCORED_REACH)) for _ in range(_SCORED)
    ]
    judged = CandidateEvaluator(
        context.elastic, context.request.data, context.request.task,
        effort=Effort(val_limit=_SCORED_EXAMPLES), original=context.evaluator.original,
        trained=False, threads=context.evaluator.threads, statistics=_SCORED_STATISTICS,
    )  # fmt: skip

    def score_of(candidate: Candidate) -> float:
        try:
            found = judged.evaluate(candidate, fidelity=Fidelity.INHERITED, seed=0)
        except Exception as error:  # as in a trial, whatever went wrong is the candidate's failure
            context.tell(STAGE, "note", f"candidate {candidate.id} cannot be scored: {error}")
            return math.nan
        return found.metrics["accuracy"]

    began = time.monotonic()
    score_of(candidates[0])
    expected = len(candidates) * max(1e-3, time.monotonic() - began)
    checks = int(_SCORING_SHARE * seconds / expected)
    if checks < _LEAST_CHECKS:
        return None, 0
    return lambda: sum(map(score_of, candidates)) / len(candidates), min(checks, _MOST_CHECKS)
