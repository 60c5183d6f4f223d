"""Copy from another run all that this one goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from autocompress.agent.context import Context
from autocompress.agent.planner import Plan
from autocompress.agent.request import MODELS
from autocompress.agent.run_folder import RunFolder
from autocompress.agent.trust import FILE as TRUST
from autocompress.core.files import replacing, writing
from autocompress.core.trial import TrialRecord
from autocompress.errors import StorageError
from autocompress.search.store import TrialStore, read_trials

STAGE = "take over"
#: The other run's trials, at its own device's prices.
TRIALS = "taken_over.db"
_PLAN = "plan.json"


def run(context: Context) -> None:
    """Leaves the other run's trials, checkpoints, order of channels, space and plan in the folder.

    The plan is written last: while it is missing the other run is needed, from then on it is not.

    Raises:
        StorageError: the other run is gone or damaged, or something cannot be copied.
    """
    folder, source = context.folder, context.origin
    if source is None or (folder.path / _PLAN).is_file():
        return
    if not source.is_dir():
        raise StorageError(f"the run to start from, {source}, is gone; put it back, or search anew")
    other = RunFolder(source)
    plan = other.read_json(_PLAN, Plan.from_json)
    if plan is None:
        raise StorageError(f"{source} was ended before its search began; resume it first")
    store(folder.path / TRIALS, read_trials(source / "study.db"))
    for name in ("channels.json", "capabilities.json", TRUST):
        if (source / name).is_file():
            _copy(source / name, folder.path / name)
    for path in sorted(other.checkpoints.glob("[!.]*.safetensors")):
        _copy(path, folder.checkpoints / path.name)
    models = int(context.request.options.get(MODELS, plan.models))
    folder.write_json(_PLAN, replace(plan, seconds={}, models=models).to_json())


def store(path: Path, trials: Iterable[TrialRecord]) -> None:
    """A store of these trials that is complete or absent."""
    temporary = path.with_name(f".{path.name}")
    with writing(path):
        temporary.unlink(missing_ok=True)
        with TrialStore(temporary) as new:
            for trial in trials:
                new.append(trial)
        temporary.replace(path)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
