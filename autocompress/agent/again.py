"""What a run was asked for, read from its folder: to go on with it, or to start from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from autocompress.agent.preflight import check_task
from autocompress.agent.request import Request
from autocompress.agent.run_folder import RunFolder
from autocompress.core.budget import Budget
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.space import SearchSpace
from autocompress.errors import RequestError, StorageError
from autocompress.evaluation.data import Data
from autocompress.evaluation.task import Task
from autocompress.search.strategies.registry import strategy_names


def open_run(run_dir: str | Path) -> RunFolder:
    """The folder of a run that is there.

    Raises:
        StorageError: there is none.
    """
    if not Path(run_dir).is_dir():
        raise StorageError(f"there is no run folder {run_dir}; check the path")
    folder = RunFolder(Path(run_dir))
    folder.settings()
    return folder


def request_again(
    folder: RunFolder,
    model: nn.Module | SearchSpace | None = None,
    *,
    data: Data | None = None,
    task: Task | None = None,
    call: str = "autocompress.resume({run})",
) -> Request:
    """The run's request; what the folder cannot hold has to be given again.

    Args:
        folder: the run.
        model: the same model again, unless the run is of a named space.
        data: the same data again, unless it was given by name.
        task: the same task again, unless it was classification.
        call: what was called, for messages.

    Raises:
        RequestError: the run needs its model, data or task again, or had a sampler of its own.
    """
    check_task(task, ())
    stored = folder.settings()["request"]
    called = call.format(run=repr(str(folder.path)))
    if data is None and ":" not in stored["data"] and stored["data"] != "digits":
        raise RequestError(
            f"the run's data were given as objects; give them again: {_with(called, 'data=...')}"
        )
    if task is None and stored["task"] != Task().name:
        raise RequestError(
            f"the run's task {stored['task']!r} has a loss and a metric of its own, which the run "
            f"folder does not hold; give it again: {_with(called, 'task=...')}"
        )
    if stored["strategy"] not in strategy_names():
        raise RequestError(
            f"the run's strategy was an object ({stored['strategy']}), which the run folder does "
            "not hold; call autocompress.search with the same arguments and run_dir"
        )
    techniques = stored.get("techniques")
    return Request(
        subject=_subject(stored, called) if model is None else model,
        data=Data.of(data if data is not None else stored["data"]),
        device=folder.device if folder.has_device else stored["device"],
        budget=Budget(
            seconds=stored.get("budget_seconds"),
            trials=stored.get("budget_trials"),
            train_steps=stored.get("budget_train_steps"),
            models=stored.get("budget_models"),
        ),
        objectives=parse_objectives(stored["objectives"]),
        constraints=parse_constraints(stored["constraints"]),
        techniques=None if techniques is None else tuple(techniques),
        task=task or Task(),
        strategy=stored["strategy"],
        executor=stored["executor"],
        workers=stored["workers"],
        seed=stored["seed"],
        held=tuple(stored.get("held", ())),
        options=stored.get("options", {}),
    )


def _subject(stored: Mapping[str, Any], called: str) -> str:
    if stored["kind"] == "space":
        return str(stored["model"])
    raise RequestError(
        f"the run searched a model of class {stored['model']}, which the run folder does not hold; "
        f"give it again: {_with(called, 'model=...')}; on the command line, "
        "--model FILE.py:FUNCTION"
    )


def _with(called: str, argument: str) -> str:
    """A call with one more argument, such as ``"f(1, data=...)"`` from ``"f(1)"``."""
    begun = called.removesuffix(")")
    return f"{begun}{'' if begun.endswith('(') else ', '}{argument})"
