"""Copy from another run what this one goes on from."""

from __future__ import annotations

import shutil
from dataclasses import replace

from autocompress.agent.context import Context
from autocompress.agent.planner import Plan
from autocompress.agent.request import MODELS
from autocompress.agent.stages.baseline import ORIGINAL
from autocompress.core.files import writing
from autocompress.errors import StorageError

STAGE = "take over"


def run(context: Context) -> None:
    """Leaves the other run's checkpoints, order of channels and plan in this run's folder.

    Raises:
        StorageError: the other run ended too early, or something cannot be copied.
    """
    source, folder = context.origin, context.folder
    if source is None or (folder.path / "plan.json").is_file():  # which is written last
        return
    plan = source.read_json("plan.json", Plan.from_json)
    if plan is None or not (source.checkpoints / ORIGINAL).is_file():
        raise StorageError(f"{source.path} was ended before its search began; resume it first")
    with writing(folder.path):
        for name in ("channels.json", "graph.json"):
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, folder.path / name)
        shutil.copytree(source.checkpoints, folder.checkpoints, dirs_exist_ok=True)
    models = int(context.request.options.get(MODELS, plan.models))
    folder.write_json("plan.json", replace(plan, seconds={}, models=models).to_json())
