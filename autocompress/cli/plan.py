"""``autocompress plan``."""

from __future__ import annotations

from autocompress.cli import options


def plan(
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
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Say what a search would do and cost, without doing it."""
    import json

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
    from autocompress.api import plan as make_plan
    from autocompress.core.json_values import finite
    from autocompress.report.display import plan_lines
    from autocompress.report.units import printable

    values = make_plan(start, data, **wanted).to_json()
    if as_json:
        print(json.dumps(finite(values), allow_nan=False))
    else:
        print(printable("\n".join(plan_lines(values))))
