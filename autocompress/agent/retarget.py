"""Another device, or other bounds, from what a run has found: its weights and its evaluations.

A run of its own: it takes over the shared weights, the finalised
models and the trials of the first run, prices them anew and verifies a front of them. Nothing is
trained, unless a budget is given for it (Cai et al. 2020, arXiv:1908.09791, train once in the same
sense).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autocompress.agent.request import MODELS, ORIGIN, Request
from autocompress.agent.run_folder import RunFolder
from autocompress.core.budget import Budget
from autocompress.core.events import Observer
from autocompress.core.objective import Objective, parse_constraints, parse_objectives
from autocompress.errors import RequestError
from autocompress.search.store import read_trials


def retargeted(
    request: Request,
    source: RunFolder,
    device: Any,
    *,
    constraints: Mapping[str, float] | None = None,
    objectives: Sequence[Objective | str] | None = None,
    budget: Budget | None = None,
    models: int = 12,
) -> Request:
    """The request of a run that starts from another.

    Args:
        request: the other run's.
        source: its folder.
        device: a name, a path, or a profile.
        constraints: bounds; None takes over the other run's.
        objectives: two to four; None takes over the other run's.
        budget: time for training the chosen models in full; None trains nothing.
        models: to export and verify at the most.

    Raises:
        RequestError: the other run has no finished trials, or the budget is not in seconds.
    """
    trials = read_trials(source.path / "study.db") if (source.path / "study.db").is_file() else []
    if not trials:
        raise RequestError(
            f"{source.path} has no finished trials to start from; resume it first, or search anew"
        )
    if budget is not None and budget.seconds is None:
        raise RequestError("budget is the time to train the chosen models; give it in seconds")
    return replace(
        request,
        device=device,
        objectives=request.objectives if objectives is None else parse_objectives(objectives),
        constraints=request.constraints if constraints is None else parse_constraints(constraints),
        budget=budget or Budget(trials=len(trials)),
        options={**request.options, ORIGIN: str(source.path.resolve()), MODELS: models},
    )


def new_folder(source: RunFolder, request: Request) -> Path:
    """A folder beside the other run's that is not there yet."""
    name = f"{source.path.name}-{request.device_name}"
    found = source.path.with_name(name)
    for number in itertools.count(2):
        if not found.exists():
            break
        found = source.path.with_name(f"{name}-{number}")
    return found


def run_retarget(
    request: Request,
    source: RunFolder,
    folder: Path,
    *,
    resume: str = "auto",
    observers: Sequence[Observer] = (),
) -> Path:
    """Make the new run, or what is missing of it, in ``folder``.

    Args:
        request: from :func:`retargeted`.
        source: the run to start from; it is only read.
        folder: the new run's folder.
        resume: as for a search.
        observers: told of every event.

    Returns:
        The run folder.

    Raises:
        RequestError: the folder is the other run's, holds another run, or weights or data differ.
        InfeasibleError: no candidate meets the constraints.
    """
    from autocompress.agent.pipeline import run_search

    if folder.resolve() == source.path.resolve():
        raise RequestError(f"{folder} is the run to start from; give another run_dir")
    if source.settings()["request"]["fingerprint"] != request.fingerprint:
        raise RequestError(
            f"{source.path} is a run of other weights or other data; give the ones that it had"
        )
    return run_search(request, folder, resume=resume, observers=observers)
