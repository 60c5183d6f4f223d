"""Another device, or other bounds, from what a run has found: its weights and its evaluations.

A run of its own: it takes over the shared weights, the finalised models and the trials of the first
run, prices them anew and verifies a front of them. Nothing is trained, unless time is given for it
(Cai et al. 2020, arXiv:1908.09791, train once in the same sense). Once begun it needs the first run
no more.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autocompress.agent.preflight import check_priced, check_task
from autocompress.agent.request import MODELS, ORIGIN, TRAINING, Request
from autocompress.agent.run_folder import RunFolder
from autocompress.core.budget import Budget
from autocompress.core.events import Observer
from autocompress.core.objective import Objective, parse_constraints, parse_objectives
from autocompress.errors import RequestError, StorageError
from autocompress.hardware.profiles import load_profile
from autocompress.search.store import read_trials


def retargeted(
    request: Request,
    source: RunFolder,
    device: Any = None,
    *,
    constraints: Mapping[str, float] | None = None,
    objectives: Sequence[Objective | str] | None = None,
    train_seconds: float | None = None,
    models: int = 12,
) -> Request:
    """The request of a run that starts from another.

    Args:
        request: the other run's.
        source: its folder.
        device: a name, a path, or a profile; None keeps the table that the run was priced by.
        constraints: bounds; None takes over the other run's.
        objectives: two to four; None takes over the other run's.
        train_seconds: time for training the models that are added in full; None trains nothing.
        models: to export and verify at the most.

    Raises:
        RequestError: something that is asked for cannot be, or weights or data are others.
        StorageError: the other run has come to no trials yet.
    """
    if isinstance(models, bool) or not isinstance(models, int) or models < 1:
        raise RequestError(f"models is {models!r}; give at least 1")
    _check_source(source, request)
    if device is None:
        device = source.device if source.has_device else request.device
    trials = read_trials(source.path / "study.db")
    wanted = replace(
        request,
        device=device,
        objectives=request.objectives if objectives is None else parse_objectives(objectives),
        constraints=request.constraints if constraints is None else parse_constraints(constraints),
        budget=Budget(trials=max(1, len(trials))),
        options={
            **{k: v for k, v in request.options.items() if k != TRAINING},
            ORIGIN: str(source.path.resolve()),
            MODELS: models,
            **({} if train_seconds is None else {TRAINING: train_seconds}),
        },
    )
    check_task(wanted.task, wanted.constraints)
    metrics = [o.metric for o in wanted.objectives] + [c.metric for c in wanted.constraints]
    check_priced(metrics, load_profile(device))
    return wanted


def _check_source(source: RunFolder, request: Request) -> None:
    if source.settings()["request"]["fingerprint"] != request.fingerprint:
        raise RequestError(
            f"{source.path} is a run of other weights or other data; give the ones that it had"
        )
    needed = ("plan.json", "capabilities.json", "checkpoints/original.safetensors", "study.db")
    missing = [name for name in needed if not (source.path / name).is_file()]
    if missing:
        raise StorageError(
            f"{source.path} has come to no trials to start from (it has no {', '.join(missing)}); "
            "resume it first, or search anew"
        )


def new_folder(source: RunFolder, request: Request) -> Path:
    """A folder beside the other run's that is not there yet."""
    name = f"{source.path.name}-{request.device_name.replace(':', '-')}"
    found = source.path.with_name(name)
    for number in itertools.count(2):
        if not found.exists():
            break
        found = source.path.with_name(f"{name}-{number}")
    return found


def run_retarget(
    request: Request, folder: Path, *, resume: str = "auto", observers: Sequence[Observer] = ()
) -> Path:
    """Make the new run, or what is missing of it, in ``folder``.

    Args:
        request: from :func:`retargeted`.
        folder: the new run's folder.
        resume: as for a search.
        observers: told of every event.

    Returns:
        The run folder.

    Raises:
        RequestError: the folder is the other run's, or holds another run.
        InfeasibleError: no candidate meets the constraints.
    """
    from autocompress.agent.pipeline import run_search

    if folder.resolve() == Path(request.options[ORIGIN]):
        raise RequestError(f"{folder} is the run to start from; give another run_dir")
    return run_search(request, folder, resume=resume, observers=observers)
