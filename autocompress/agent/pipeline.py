"""The stages in order, under the run folder's lock; each does only what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from autocompress.agent.context import Context
from autocompress.agent.decisions import DecisionLog
from autocompress.agent.provenance import command_line
from autocompress.agent.request import Request
from autocompress.agent.run_folder import RunFolder
from autocompress.agent.stages import (
    baseline,
    elasticise,
    finalise,
    inspect,
    price,
    rank,
    retarget,
    search,
    sensitise,
    take_over,
    trust,
    verify,
)
from autocompress.agent.wholeness import results_are_whole
from autocompress.core.events import Event, Observer
from autocompress.errors import (
    AutocompressError,
    InfeasibleError,
    RequestError,
    StorageError,
    VerificationError,
)
from autocompress.hardware.profiles import load_profile
from autocompress.report.html import write_report
from autocompress.search.lock import RunLock

#: In order of execution.
STAGES = (inspect, rank, baseline, price, sensitise, elasticise, trust, search, finalise, verify)
#: The same for a run that starts from another.
RETARGET_STAGES = (take_over, inspect, rank, baseline, price, retarget, verify)
#: Once the user asked to stop, only what makes use of finished work still runs.
_AFTER_INTERRUPT = (verify,)


def run_search(
    request: Request, folder: Path, *, resume: str = "auto", observers: Sequence[Observer] = ()
) -> Path:
    """Run a search, or what is missing of it, in ``folder``.

    Args:
        request: what is asked.
        folder: the run folder.
        resume: "auto" goes on with a run that is there, "never" refuses to, "must" insists.
        observers: told of every event.

    Returns:
        The run folder.

    Raises:
        RunInUseError: another process is writing to the folder.
        RequestError: the folder holds a run that was asked for something else.
        NoFeasibleCandidateError: no candidate meets the constraints.
    """
    if resume not in ("auto", "never", "must"):
        raise RequestError(f"resume is {resume!r}; use 'auto', 'never' or 'must'")
    if resume == "must" and not (folder / "run.toml").is_file():
        raise RequestError(f"{folder} holds no run to resume; check the path")
    files = RunFolder(folder)
    with RunLock(folder):
        if _is_complete(request, files, resume):
            for observer in observers:
                observer(Event("run", "note", f"{folder} is complete; nothing is left to do"))
            return folder
        context = _open(request, files, resume, observers)
        try:
            _run_stages(context)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            with suppress(StorageError):  # the error that brought us here matters more
                report = isinstance(error, InfeasibleError | VerificationError)
                _close(context, status, report=report)
                if isinstance(error, AutocompressError):
                    context.log.add("run", "failed", str(error), {"type": type(error).__name__})
            raise
        _close(context, "interrupted" if context.stopping else "complete", report=True)
    return folder


def _is_complete(request: Request, files: RunFolder, resume: str) -> bool:
    """Whether the folder holds this very run, ended and untouched, and going on is allowed."""
    if not files.exists or resume == "never" or files.status != "complete":
        return False
    _check_same(request, files)
    return results_are_whole(files)


def _check_same(request: Request, files: RunFolder) -> None:
    """Make sure that what is in the folder was asked for, on the same device.

    Raises:
        RequestError: it is another run.
    """
    asked = request.to_toml()
    files.check_same(asked)
    stored = files.settings()["request"].get("device")
    if files.has_device and not (profile := load_profile(files.device)).is_local:
        stored = profile.id  # it may have been given by another path
        asked["device"] = load_profile(request.device).id
    if stored != asked["device"]:
        raise RequestError(
            f"{files.path} holds a run for device {stored!r}, now asked for {asked['device']!r}; "
            f"use another run_dir"
        )


def _open(
    request: Request, files: RunFolder, resume: str, observers: Sequence[Observer]
) -> Context:
    spent = 0.0
    if files.exists:
        if resume == "never":
            raise RequestError(
                f"{files.path} holds a run already; give an empty run_dir, or resume='auto'"
            )
        _check_same(request, files)
        spent = float(files.settings()["run"].get("elapsed_seconds", 0.0))
        files.update(status="running")
    elif left := files.leftovers:
        raise StorageError(
            f"{files.path} holds parts of a run ({', '.join(left)}) but no run.toml that says of "
            "which; restore run.toml from a copy, or give another run_dir"
        )
    else:
        profile = load_profile(request.device)
        if not profile.is_local:  # a run can be resumed when the profile it was given is gone
            profile.save(files.device)
        files.begin(request.to_toml(), command_line())
    context = Context(
        request, files, DecisionLog(files), observers=tuple(observers), spent_before=spent
    )
    context.tell(
        "run",
        "note",
        f"run folder {files.path}",
        {"run_dir": str(files.path), "resumed": spent > 0},
    )
    return context


def _run_stages(context: Context) -> None:
    threads = torch.get_num_threads()
    try:
        _run_each(context)
    finally:
        torch.set_num_threads(threads)


def _run_each(context: Context) -> None:
    with context.interrupts.watching():
        for stage in STAGES if context.origin is None else RETARGET_STAGES:
            if context.stopping and (stage not in _AFTER_INTERRUPT or not context.finalists):
                continue
            name = stage.STAGE
            context.tell(name, "stage_started", name)
            before = context.elapsed
            stage.run(context)
            seconds = context.elapsed - before
            context.folder.update(elapsed_seconds=round(context.elapsed, 1))
            context.tell(name, "stage_finished", name, {"seconds": seconds})


def _close(context: Context, status: str, *, report: bool) -> None:
    context.folder.update(status=status, elapsed_seconds=round(context.elapsed, 1))
    if report:
        write_report(context.folder.path, context.folder.path / "report.html")
        event = Event("report", "finished", status, {"run_dir": str(context.folder.path)})
        for observer in context.observers:
            observer(event)
