"""``autocompress search``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


class Resume(StrEnum):
    """What to do with a run folder that is there already."""

    AUTO = "auto"
    NEVER = "never"
    MUST = "must"


def search(
    data: options.Data,
    space: options.Space = None,
    model: options.Model = None,
    weights: options.Weights = None,
    device: options.Device = "local",
    budget: options.BudgetText = "10m",
    trials: options.Trials = None,
    models: options.Models = None,
    objectives: options.Objectives = options.DEFAULT_OBJECTIVES,
    constraint: options.Constraints = None,
    techniques: options.Techniques = None,
    hold: options.Held = None,
    strategy: options.Strategy = "auto",
    executor: options.Executor = "local",
    workers: options.Workers = 1,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where to write; a new folder in runs/.")
    ] = None,
    resume: Annotated[
        Resume, typer.Option("--resume", help="When the run folder is there already.")
    ] = Resume.AUTO,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for models that are faster and smaller, and verify every one of them.

    Give a search space or your own model, data, a device and a budget. Ctrl-C saves and reports
    what there is; press it twice to leave at once.
    """
    wanted = options.request(
        device=device,
        budget=budget,
        trials=trials,
        models=models,
        objectives=objectives,
        constraints=constraint,
        techniques=techniques,
        held=hold,
        strategy=strategy,
        executor=executor,
        workers=workers,
        seed=seed,
    )
    start = options.subject(space, model, weights)
    from autocompress.api import search as run_search
    from autocompress.cli.outcome import show_outcome

    result = run_search(
        start,
        data,
        **wanted,
        run_dir=run_dir,
        resume=resume.value,
        progress=options.progress_mode(as_json, quiet),
    )
    show_outcome(result.run_dir, as_json=as_json, quiet=quiet)
