"""``autocompress retarget``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli import options


def retarget(
    run: options.RunFolder,
    device: Annotated[
        str | None,
        typer.Option("--device", help="As for a search; without it, the run's own device."),
    ] = None,
    constraint: options.Constraints = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Time to train what is added, such as 5m; none without it."),
    ] = None,
    models: Annotated[int, typer.Option("--models", min=1, help="To verify at the most.")] = 12,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Where to write; a new folder beside RUN.")
    ] = None,
    model: options.Model = None,
    weights: options.Weights = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """A new front for another device or other bounds, from a run's weights and evaluations.

    Nothing is trained, unless there is a budget for it. A run of your own model needs --model
    again: a run folder never says which code to run.
    """
    from autocompress.report.run_folder import read_run

    view = read_run(run)
    subject = options.model_again(view, model, weights, command="retarget")
    from autocompress.agent.result import SearchResult
    from autocompress.cli.outcome import show_outcome

    result = SearchResult(run).retarget(
        device,
        constraints=options.constraint_values(constraint or ()),
        budget=budget,
        models=models,
        run_dir=run_dir,
        model=subject,
        progress=options.progress_mode(as_json, quiet),
    )
    show_outcome(result.run_dir, as_json=as_json, quiet=quiet)
