"""``autocompress.search`` and its siblings."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from autocompress.agent.again import open_run, request_again
from autocompress.agent.context import Context
from autocompress.agent.decisions import DecisionLog
from autocompress.agent.pipeline import run_search
from autocompress.agent.planner import Plan
from autocompress.agent.preflight import check_names, check_priced, check_task
from autocompress.agent.request import ORIGIN, Request
from autocompress.agent.result import SearchResult
from autocompress.agent.retarget import run_retarget
from autocompress.agent.run_folder import RunFolder
from autocompress.agent.stages import inspect as inspect_stage
from autocompress.compression.registry import make_techniques
from autocompress.core.budget import Budget
from autocompress.core.events import Observer
from autocompress.core.held import parse_held
from autocompress.core.objective import (
    Objective,
    parse_constraints,
    parse_objectives,
)
from autocompress.core.space import SearchSpace
from autocompress.errors import RequestError
from autocompress.evaluation.data import Data
from autocompress.evaluation.sensitivity.result import Sensitivity
from autocompress.evaluation.task import Task
from autocompress.hardware.profiles import load_profile
from autocompress.report.display import make_display

OBJECTIVES = ("accuracy", "latency_ms", "size_bytes")


def search(
    model: nn.Module | str | SearchSpace,
    data: Data | str,
    *,
    device: Any = "local",
    budget: Budget | str | float = "10m",
    objectives: Sequence[Objective | str] = OBJECTIVES,
    constraints: Mapping[str, float] | None = None,
    techniques: Sequence[str] | None = None,
    held: Sequence[str] = (),
    task: Task | None = None,
    strategy: Any = "auto",
    executor: str = "local",
    workers: int = 1,
    run_dir: str | Path | None = None,
    resume: str = "auto",
    seed: int = 0,
    progress: bool | str = True,
    callbacks: Sequence[Observer] = (),
) -> SearchResult:
    """Search for deployable models and verify every one that is returned.

    Args:
        model: a trained ``torch.nn.Module``, the name of a search space, or a space.
        data: ``Data``, or a text such as ``"digits"`` or ``"cifar10:DIR"``.
        device: a profile's name, the path of a profile, a profile, or ``"local"``: this machine,
            where missing kernels are measured and every model is timed; ``"local:openvino"``,
            ``"local:2"`` and ``"local:openvino:2"`` take another runtime or number of threads.
        budget: ``"10m"``, seconds, or a ``Budget``. With ``Budget(trials=...)`` and a device other
            than ``"local"`` nothing depends on the machine's speed: equal seeds, equal trials.
        objectives: two to four of the metrics.
        constraints: bounds, such as ``{"latency_ms": 2.0, "accuracy_drop": 0.01}``.
        techniques: names, such as "low_rank", or "low_rank:tucker" for one form of it; None takes
            all that pay on the device.
        held: choices that are not searched and stay as the original has them: a kind of choice,
            the name of one, or a pattern of names. ``["architecture"]`` keeps depths, branches,
            kernels and resolution, ``["width:*"]`` all channels.
        task: loss and metric; classification by default.
        strategy: "auto", a name, or an Optuna sampler.
        executor: "local".
        workers: worker processes; 1 runs trials in this process.
        run_dir: where everything is written; by default a new folder in ``runs/``.
        resume: what to do with a run that is there: "auto" goes on, "never" refuses, "must"
            insists on one.
        seed: decides everything random.
        progress: True shows progress; or "live", "plain", "json", "none".
        callbacks: told of every :class:`~autocompress.core.events.Event`.

    Returns:
        The verified front, the baseline, and every trial.

    Raises:
        RequestError: the request is wrong; the message says how to mend it.
        InfeasibleError: no candidate meets the constraints; names the nearest.
        RunInUseError: another process is writing to the run folder.
    """
    request = _request(
        model, data, device=device, budget=budget, objectives=objectives, constraints=constraints,
        techniques=techniques, held=held, task=task, strategy=strategy, executor=executor,
        workers=workers, seed=seed,
    )  # fmt: skip
    folder = Path(run_dir) if run_dir is not None else _new_folder(request.subject_name)
    with make_display(progress) as display:
        run_search(request, folder, resume=resume, observers=(display, *callbacks))
    return SearchResult(folder, request)


def plan(
    model: nn.Module | str | SearchSpace,
    data: Data | str,
    *,
    device: Any = "local",
    budget: Budget | str | float = "10m",
    objectives: Sequence[Objective | str] = OBJECTIVES,
    constraints: Mapping[str, float] | None = None,
    techniques: Sequence[str] | None = None,
    held: Sequence[str] = (),
    task: Task | None = None,
    strategy: Any = "auto",
    executor: str = "local",
    workers: int = 1,
    seed: int = 0,
) -> Plan:
    """What a search would do, and what it would cost; trains a few steps to know.

    Takes the same arguments as :func:`search`, and raises the same errors.
    """
    request = _request(
        model, data, device=device, budget=budget, objectives=objectives, constraints=constraints,
        techniques=techniques, held=held, task=task, strategy=strategy, executor=executor,
        workers=workers, seed=seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="autocompress-plan-") as scratch:
        files = RunFolder(Path(scratch))
        context = Context(request, files, DecisionLog(files))
        inspect_stage.run(context)
        return context.plan


def resume(
    run_dir: str | Path,
    model: nn.Module | SearchSpace | None = None,
    *,
    data: Data | None = None,
    task: Task | None = None,
    progress: bool | str = True,
    callbacks: Sequence[Observer] = (),
) -> SearchResult:
    """Go on with a run that was interrupted; does only what is missing.

    Args:
        run_dir: the run folder.
        model: the same model again, unless the run is of a named space.
        data: the same data again, unless it was given by name.
        task: the same task again, unless it was classification.
        progress: as in :func:`search`.
        callbacks: as in :func:`search`.

    Raises:
        StorageError: the folder is no run.
        RequestError: the run needs its model or data again.
    """
    folder = open_run(run_dir)
    request = request_again(folder, model, data=data, task=task)
    with make_display(progress) as display:
        observers: Sequence[Observer] = (display, *callbacks)
        if ORIGIN in request.options:
            run_retarget(request, folder.path, resume="must", observers=observers)
        else:
            run_search(request, folder.path, resume="must", observers=observers)
    return SearchResult(folder.path, request)


def sensitivity(
    model: nn.Module,
    data: Data | str,
    *,
    device: Any = None,
    techniques: Sequence[str] | None = None,
    task: Task | None = None,
    budget: Budget | str | float = "2m",
    examples: int = 256,
    seed: int = 0,
    pairs: int | Sequence[str] | None = None,
    progress: bool | str = True,
) -> Sensitivity:
    """The loss of every layer under every setting alone, without training.

    Each setting that a search would have to choose from (bits, width, rank, sparsity, codebook,
    depth) is given to one layer or channel group, and the change of loss and metric is measured
    without training: quantised with ranges of the calibration examples, whitened ranks by the
    inputs that layers have on them; with batch norm statistics re-estimated where more than
    bit-widths change. Widths keep the channels of the largest squared weights; a search may rank
    them otherwise first. What the budget does not pay for is estimated from cheap scores, and
    marked.

    Args:
        model: a trained ``torch.nn.Module``; not changed.
        data: ``Data``, or a text such as ``"digits"`` or ``"cifar10:DIR"``.
        device: whose settings are looked at and priced: as in :func:`search`. Nothing is measured
            on it. None takes the settings of an x86 CPU, without latencies.
        techniques: names; None takes all of them.
        task: loss and metric; classification by default.
        budget: time for all of it, such as ``"2m"``, or ``Budget(trials=...)`` for a number of
            measured settings, which does not depend on the machine's speed.
        examples: validation examples that losses are measured on, spread over the classes, and
            training examples that batch norm statistics are re-estimated from.
        seed: decides which examples, and the random directions in which the Hessian is looked at.
        pairs: also measure settings two at a time, into ``interactions``: a number for so many of
            the most harmful and the most promising pairs, or names of layers for all pairs of
            their settings. They count against the budget's time.
        progress: True shows progress; or "live", "plain", "json", "none".

    Returns:
        The table, what cannot take a setting and why, and the agreement of the cheap scores with
        the measured losses.

    Raises:
        RequestError: the request is wrong; the message says how to mend it.
        DataError: the data do not fit the model.
        CaptureError: the model cannot be captured.
    """
    from autocompress.agent.sensitivity import run_sensitivity

    if not isinstance(model, nn.Module):
        raise RequestError(
            f"the model is a {type(model).__name__}; give a trained torch.nn.Module: a search "
            "space has no trained weights whose loss could be looked at"
        )
    check_task(task, ())
    make_techniques(techniques)
    with make_display(progress) as display:
        return run_sensitivity(
            model, Data.of(data), device=device, techniques=techniques, task=task or Task(),
            budget=Budget.parse(budget), examples=examples, seed=seed, observer=display,
            pairs=pairs,
        )  # fmt: skip


def _request(
    model: nn.Module | str | SearchSpace,
    data: Data | str,
    *,
    device: Any,
    budget: Budget | str | float,
    objectives: Sequence[Objective | str],
    constraints: Mapping[str, float] | None,
    techniques: Sequence[str] | None,
    held: Sequence[str],
    task: Task | None,
    strategy: Any,
    executor: str,
    workers: int,
    seed: int,
) -> Request:
    """Check the cheap things first, so that a wrong word costs no waiting."""
    parsed = Budget.parse(budget)
    wanted = parse_objectives(objectives)
    bounds = parse_constraints(constraints)
    check_names(model, strategy, executor, techniques)
    check_task(task, bounds)
    check_priced([*(o.metric for o in wanted), *(c.metric for c in bounds)], load_profile(device))
    return Request(
        subject=model,
        data=Data.of(data),
        device=device,
        budget=parsed,
        objectives=wanted,
        constraints=bounds,
        techniques=None if techniques is None else tuple(techniques),
        held=parse_held(held),
        task=task or Task(),
        strategy=strategy,
        executor=executor,
        workers=workers,
        seed=seed,
    )


def _new_folder(name: str) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{name}"
