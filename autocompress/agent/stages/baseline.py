"""The rows everything is compared with: the original in fp32 and in uniform int8."""

from __future__ import annotations

import time
from typing import Any

import torch

from autocompress.agent.artifacts import Artifact, measure_latencies, move, write_artifact
from autocompress.agent.context import Context
from autocompress.agent.figures import Row
from autocompress.agent.observing import observe
from autocompress.agent.planner import VerificationCost, with_verification
from autocompress.agent.weights import load_weights
from autocompress.agent.wholeness import model_is_whole
from autocompress.core.candidate import Candidate, Recipe
from autocompress.elastic.realise import realise
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.evaluator import PreparedModel, save_tensors, uniform
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.graph.folding import fold_batch_norm

STAGE = "baseline"
FP32, INT8 = "baseline-fp32", "baseline-int8"
ORIGINAL = "original.safetensors"
#: Peak learning rate when a named space's largest network is trained from nothing.
FROM_SCRATCH_RATE = 4e-3
#: A network that was trained for fewer steps is no baseline, however little time there is.
_LEAST_STEPS = 20


def run(context: Context) -> None:
    """Train a named space's largest network, then measure the original in fp32 and int8."""
    if not _weights(context):
        return
    observe(context)
    context.teacher = realise(context.elastic, context.space.decode(context.space.original))
    context.evaluator.teacher = context.teacher
    stored = context.folder.read_json("baseline.json", _rows)
    if stored is not None and all(model_is_whole(context.folder.models / name) for name in stored):
        context.baselines = stored
        return
    original = _original(context)
    began = time.monotonic()  # the first export loads libraries, which is paid for once
    artifacts = [original, _int8(context)]
    exported = time.monotonic()
    for artifact, measured in zip(artifacts, measure_latencies(context, artifacts), strict=True):
        artifact.row.update(measured)
    cost = _cost(artifacts, exported - began, time.monotonic() - exported)
    context.baselines = {a.row["id"]: a.row for a in artifacts}
    reference = context.baselines[FP32]
    for artifact in artifacts:
        finish_row(artifact.row, reference, context)
        artifact.write_manifest(context)
        move(artifact, context.folder.models)
    context.folder.write_json("baseline.json", [a.row for a in artifacts])
    context.tell(STAGE, "note", "baseline", {"rows": [a.row for a in artifacts]})
    _say(context)
    _doubt_validation(context)
    if stored is None:
        _plan_again(context, cost)
    else:
        context.decide(
            STAGE,
            "lost baseline",
            "A baseline's file was missing or damaged: both were made again.",
        )


def _rows(stored: Any) -> dict[str, Row]:
    """Rows of ``baseline.json`` by id.

    Raises:
        ValueError: a baseline is missing, or a figure that others are compared with.
    """
    rows = {row["id"]: row for row in stored}
    for name in (FP32, INT8):
        for key in ("accuracy", "val_accuracy", "trial_accuracy", "size_bytes"):
            if not isinstance(rows[name][key], int | float):
                raise ValueError(f"{key} of {name} is {rows[name][key]!r}")
    return rows


def _cost(artifacts: list[Artifact], exporting: float, timing: float) -> VerificationCost:
    """What verifying a model will cost, from what it cost for the baselines.

    Args:
        artifacts: the baselines.
        exporting: seconds to prepare, export and check the last of them.
        timing: seconds to time them all.
    """
    timed = 0.0
    for artifact in artifacts:
        if artifact.latency is not None and artifact.latency.ok:
            protocol = artifact.latency.protocol
            running = artifact.latency.runs * float(artifact.row["latency_ms"]) / 1e3
            timed += max(running, float(protocol["min_seconds"]))
    return VerificationCost.of(len(artifacts) * exporting, timing, timed, len(artifacts))


def _plan_again(context: Context, cost: VerificationCost) -> None:
    """Keep as much time for verification as it was seen to need."""
    before = context.plan
    context.plan = with_verification(
        before, cost, context.remaining(), context.request.budget.models
    )
    if context.plan is before:
        return
    context.folder.write_json("plan.json", context.plan.to_json())
    verify = context.plan.seconds["verify"]
    context.decide(
        STAGE,
        "plan again",
        f"Exporting, checking and timing a model takes {cost.each:.1f} s here, and {cost.once:.1f} "
        f"s once: "
        f"{verify:.0f} s are kept for {context.plan.models} models, "
        f"{context.plan.seconds['search']:.0f} s remain for the search and "
        f"{context.plan.seconds['finalise']:.0f} s for training the front.",
        seconds_per_model=cost.each, seconds_once=cost.once,
        before=before.seconds, after=context.plan.seconds,
    )  # fmt: skip


def _weights(context: Context) -> bool:
    """The original weights: the user's, or those of a freshly trained largest network.

    Returns:
        Whether they are there; not when the training was interrupted, since half-trained weights
        must not pass for trained ones when the run is resumed.
    """
    path = context.folder.checkpoints / ORIGINAL
    if load_weights(context.elastic, path):
        return True
    if context.from_scratch:
        _train(context)
        if context.stopping:
            return False
    save_tensors(context.elastic.weights.state_dict(), path)
    return True


def _train(context: Context) -> None:
    plan, request = context.plan, context.request
    largest = context.space.decode(context.space.original)
    context.elastic.configure(largest)
    limit = context.deadline(plan.seconds.get("baseline"))
    report = context.progress(STAGE, "training steps")

    steps = 0

    def over() -> bool:
        late = limit is not None and time.monotonic() > limit
        return context.stopping or (late and steps >= _LEAST_STEPS)

    def note(step: int, loss: float) -> None:
        nonlocal steps
        steps = step
        report(step, plan.training_steps)

    done = fine_tune(
        context.elastic, request.data.train, request.task,
        recipe=Recipe(distillation="none", learning_rate=FROM_SCRATCH_RATE),
        steps=plan.training_steps, seed=request.seed, deadline=over,
        bfloat16=plan.effort.bfloat16,
        progress=note,
    )  # fmt: skip
    if context.stopping:
        return
    value = evaluate_model(context.elastic, request.data.val, request.task)
    context.decide(
        STAGE,
        "train the largest network",
        f"The space's largest network was trained for {done.steps} steps; its validation "
        f"{request.task.name} metric is {value:.4f}.",
        steps=done.steps, loss=done.loss, metric=value,
    )  # fmt: skip


def _original(context: Context) -> Artifact:
    candidate = context.space.decode(context.space.original)
    model = fold_batch_norm(realise(context.elastic, candidate))
    prepared = PreparedModel(model.eval(), context.space.graph.operations(candidate))
    return _written(context, candidate, prepared, FP32, "original, fp32")


def _int8(context: Context) -> Artifact:
    original = context.space.decode(context.space.original)
    quantized = uniform(
        {n: la for n, la in context.space.graph.layers.items() if la.calls == 1}, 8, 8
    )
    candidate = Candidate(architecture=original.architecture, layers=quantized.layers)
    prepared = context.evaluator.prepare(candidate, steps=0, seed=context.request.seed)
    return _written(context, candidate, prepared, INT8, "original, uniform int8")


def _written(
    context: Context, candidate: Candidate, prepared: PreparedModel, name: str, words: str
) -> Artifact:
    artifact = write_artifact(context, candidate, prepared, name, name=words)
    # trials are judged by fewer examples: what they lose is counted against the same ones
    split = context.evaluator.trial_split()
    artifact.row["trial_accuracy"] = evaluate_model(prepared.model, split, context.request.task)
    return artifact


def finish_row(row: Row, reference: Row, context: Context) -> None:
    """Fill in what is relative to the fp32 baseline."""
    task = context.request.task
    row["accuracy_drop"] = task.drop(reference["accuracy"], row["accuracy"])
    row["val_accuracy_drop"] = task.drop(reference["val_accuracy"], row["val_accuracy"])
    if row.get("latency_ms") and reference.get("latency_ms"):
        row["speedup"] = reference["latency_ms"] / row["latency_ms"]
    row["size_ratio"] = reference["size_bytes"] / row["size_bytes"]


def _doubt_validation(context: Context) -> None:
    """Say so when the original does better on validation than on test examples than chance would.

    A two-sided 95 % interval of the test accuracy, twice as wide, is the limit.
    """
    row = context.baselines[FP32]
    high, test, val = (row.get(key) for key in ("accuracy_high", "accuracy", "val_accuracy"))
    if context.from_scratch or high is None or val <= test + 2 * (high - test):
        return
    context.decide(
        STAGE,
        "doubt the validation examples",
        f"The original scores {val:.4f} on validation and {test:.4f} on test examples: it has "
        "probably been trained on the former, so that they say little about what a change costs. "
        "Give val= examples that it has not seen, or val='test' for half of the test examples.",
        val_accuracy=val, accuracy=test,
    )  # fmt: skip


def _say(context: Context) -> None:
    fp32, int8 = context.baselines[FP32], context.baselines[INT8]
    speed = f"{int8['speedup']:.2f}x as fast" if int8.get("speedup") else "not timed here"
    context.decide(
        STAGE,
        "baselines",
        f"The original: {fp32['accuracy']:.4f}, {fp32['size_bytes']:,} bytes"
        + (f", {fp32['latency_ms']:.4f} ms" if fp32.get("latency_ms") else "")
        + f". Uniform int8 without training: {int8['accuracy']:.4f}, "
        f"{int8['size_bytes']:,} bytes, {speed}.",
        fp32=fp32, int8=int8, threads=torch.get_num_threads(),
    )  # fmt: skip
