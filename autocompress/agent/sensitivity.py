"""A sensitivity analysis on its own, outside of a search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from autocompress.agent.checks import check_against_data, check_choices
from autocompress.compression.registry import make_techniques
from autocompress.core.budget import Budget
from autocompress.core.capabilities import Capabilities
from autocompress.core.events import Event, Observer
from autocompress.core.space import Genome
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.observing import observe_inputs
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.sensitivity.analysis import Limits, Price, analyse
from autocompress.evaluation.sensitivity.pairs import PairRequest
from autocompress.evaluation.sensitivity.result import Sensitivity
from autocompress.evaluation.task import Task
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.pricing import CandidatePricer
from autocompress.hardware.profile import HardwareProfile
from autocompress.hardware.profiles import load_profile
from autocompress.hardware.size import size_bytes

STAGE = "sensitivity"
#: Share of the time that is left for prices and estimates.
_CLOSING = 0.05


def run_sensitivity(
    model: nn.Module,
    data: Data,
    *,
    device: Any,
    techniques: Sequence[str] | None,
    task: Task,
    budget: Budget,
    examples: int,
    seed: int,
    observer: Observer,
    pairs: int | Sequence[str] | None = None,
) -> Sensitivity:
    """See :func:`autocompress.api.sensitivity`, which checks and describes the arguments.

    Raises:
        RequestError: a number is out of range, or there is nothing to compress.
    """
    began = time.monotonic()
    _check(budget, examples, seed)
    together = PairRequest.parse(pairs)
    profile = None if device is None else load_profile(device)
    capabilities = Capabilities() if profile is None else profile.capabilities
    space = ElasticSpace.from_model(
        model, (data.example()[0],), techniques=make_techniques(techniques),
        capabilities=replace(capabilities, stores_packed=True),
    )  # fmt: skip
    check_choices(space)
    elastic = ElasticModel(space.graph, space.techniques).eval()
    original = space.decode(space.original)
    check_against_data(realise(elastic, original), data, task)
    observe_inputs(elastic, original, (inputs for inputs, _ in data.calibration.batches(64)))
    evaluator = CandidateEvaluator(
        elastic, data, task, effort=Effort(), original=original, statistics=examples
    )
    deadline = None if budget.seconds is None else began + (1.0 - _CLOSING) * budget.seconds

    def progress(done: int, total: int) -> None:
        said = f"{done} of {total} settings"
        observer(Event(STAGE, "progress", said, {"done": done, "total": total}))

    observer(Event(STAGE, "stage_started", STAGE))
    found = analyse(
        evaluator, space, data.val.subset(examples, seed=seed),
        limits=Limits(deadline=deadline, settings=budget.trials), seed=seed,
        price=_price(space, profile), progress=progress, pairs=together,
    )  # fmt: skip
    seconds = time.monotonic() - began
    observer(Event(STAGE, "stage_finished", repr(found), {"seconds": seconds}))
    return replace(found, seconds=seconds)


def _check(budget: Budget, examples: int, seed: int) -> None:
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 2:
        raise RequestError(f"examples is {examples!r}; give a whole number of at least 2")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise RequestError(f"seed is {seed!r}; give a whole number from 0")
    if budget.seconds is None and budget.trials is None:
        raise RequestError(
            "the budget limits training steps only, and nothing is trained here; "
            "give seconds or trials"
        )


def _price(space: ElasticSpace, profile: HardwareProfile | None) -> Price:
    """Bytes and multiply-accumulates, and on a device what its profile says."""
    if profile is not None:
        return CandidatePricer(space, LatencyPredictor(profile)).exact

    def price(genome: Genome) -> dict[str, float]:
        with torch.no_grad():
            ops = space.graph.operations(space.decode(genome))
        size = size_bytes(ops, quantized_tensors(ops))
        return {"size_bytes": float(size), "macs": float(sum(op.macs for op in ops))}

    return price
