"""How much accuracy each setting of each gene costs on its own, with inherited weights."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from autocompress.agent.context import Context
from autocompress.core.budget import Fidelity
from autocompress.core.space import Genome
from autocompress.errors import AutocompressError

STAGE = "sensitise"
FILE = "sensitivity.json"
#: Settings looked at when the budget counts trials.
_DEFAULT_SETTINGS = 60


def run(context: Context) -> None:
    """Leaves ``context.sensitivity``; stops when its share of the budget is spent."""
    if context.from_scratch:
        return  # elastic weights are not there yet, and trials train anyway
    stored = context.folder.read_json(FILE, _parsed)
    if stored is not None:
        context.sensitivity = stored
        return
    began = time.monotonic()
    settings = _settings(context)
    timed = bool(context.plan.seconds)
    deadline = context.deadline(context.plan.seconds.get(STAGE, 0.0)) if timed else None
    if not timed:
        settings = settings[:_DEFAULT_SETTINGS]
    report = context.progress(STAGE, "settings")
    reference = _accuracy(context, context.space.original)
    found: dict[str, dict[int, float]] = {}
    done = 0
    for gene, option, genome in settings:
        if context.stopping or (deadline is not None and time.monotonic() > deadline):
            break
        try:
            loss = reference - _accuracy(context, genome)
        except AutocompressError as error:
            context.decide(STAGE, "setting failed", f"{gene}, option {option}: {error}")
            continue
        found.setdefault(gene, {0: 0.0})[option] = loss
        done += 1
        report(done, len(settings))
    if context.stopping:
        return  # a part of it must not pass for the whole when the run is resumed
    context.sensitivity = found
    context.folder.write_json(FILE, found)
    worst = sorted(
        ((loss, gene, option) for gene, v in found.items() for option, loss in v.items()),
        reverse=True,
    )[:3]
    names = {c.name: c for c in context.space.choices}
    said = "; ".join(f"{g} = {names[g].options[o]} loses {v:.3f}" for v, g, o in worst if v > 0)
    context.decide(
        STAGE,
        "single settings",
        f"{done} of {len(settings)} single settings were evaluated in "
        f"{time.monotonic() - began:.0f} s" + (f"; most harmful: {said}." if said else "."),
        evaluated=done, of=len(settings),
    )  # fmt: skip


#: What tells most about a front is looked at first; int8 is known from the baseline.
_FIRST = {"w4a8": 0, "depth": 1, "width": 2, "branch": 3, "kernel": 3, "rank": 4, "w2a8": 4}
_LATER = 5


def _parsed(stored: Any) -> dict[str, dict[int, float]]:
    return {
        gene: {int(option): float(loss) for option, loss in losses.items()}
        for gene, losses in stored.items()
    }


def _settings(context: Context) -> list[tuple[str, int, Genome]]:
    """All single changes: kinds in turn, mild before strong: a cut leaves an even picture."""
    space = context.space
    found = []
    for i, choice in enumerate(space.choices):
        kind = choice.name.partition(":")[0]
        if choice.kind == "recipe":
            continue  # nothing is trained here
        for option in range(1, len(choice.options)):
            genome = space.original
            genome[i] = option
            if (space.canonical(genome) == genome).all():
                what = str(choice.options[option]) if kind == "precision" else kind
                strength = 0 if kind == "precision" else option - 1
                urgency = _FIRST.get(what, _LATER) + strength
                found.append((urgency, i, choice.name, option, genome))
    found.sort(key=lambda item: (item[0], item[1]))
    return [(name, option, genome) for _, _, name, option, genome in found]


def _accuracy(context: Context, genome: Genome) -> float:
    candidate = context.space.decode(np.asarray(genome))
    result = context.evaluator.evaluate(candidate, fidelity=Fidelity.INHERITED, seed=0)
    return float(result.metrics["accuracy"])
