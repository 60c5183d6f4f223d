"""What a candidate changes, in one line for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autocompress.compression.precisions import precision_name
from autocompress.core.candidate import Candidate, Recipe
from autocompress.elastic.space import ElasticSpace
from autocompress.graph.operations import whole_layer


def changes_of(space: ElasticSpace, candidate: Candidate) -> str:
    """Such as "w8a8 in 18 layers, w4a8 in 4; widths 72 %; 2 blocks skipped; rank in 1 layer"."""
    known = space.graph.layers
    named = [op.layer for op in space.graph.operations(candidate) if op.layer is not None]
    layers = list(dict.fromkeys(whole_layer(name, known) for name in named))
    said = [
        _precisions(candidate, layers),
        _widths(space, candidate, layers),
        _architecture(space, candidate),
        _count("low rank", len({whole_layer(name, known) for name in named if name not in known})),
        _count("sparse", sum(candidate.policy(n).sparsity > 0 for n in layers)),
        _count("shared values", sum(candidate.policy(n).codebook is not None for n in layers)),
        _recipe(candidate.recipe),
    ]
    return "; ".join(part for part in said if part) or "nothing"


def _precisions(candidate: Candidate, layers: Sequence[str]) -> str:
    counts = Counter(precision_name(candidate.policy(name)) for name in layers)
    if set(counts) == {"fp32"}:
        return ""
    if len(counts) == 1:
        return f"{next(iter(counts))} throughout"
    return "precision " + ", ".join(f"{name} x{n}" for name, n in counts.most_common())


def _widths(space: ElasticSpace, candidate: Candidate, layers: Sequence[str]) -> str:
    kept = full = 0
    for name in layers:
        channels = space.graph.layers[name].out_channels
        full += channels
        kept += candidate.policy(name).width or channels
    return f"{kept / full:.0%} of the channels" if full and kept < full else ""


def _architecture(space: ElasticSpace, candidate: Candidate) -> str:
    dropped = sum(
        len(blocks) - int(candidate.architecture.get(f"depth:{stage}", len(blocks)))
        for stage, blocks in space.graph.stages.items()
    )
    others = [
        f"{name.partition(':')[0]} changed"
        for name, value in candidate.architecture.items()
        if not name.startswith("depth:") and value != _first(space, name)
    ]
    parts = [f"{dropped} block{'s' if dropped > 1 else ''} skipped"] if dropped else []
    parts += [f"{what} x{n}" for what, n in Counter(others).items()]
    return ", ".join(parts)


def _recipe(recipe: Recipe) -> str:
    """How it was trained back, where that is not as usual."""
    if recipe == Recipe():
        return ""
    if recipe.distillation == "none":
        return "trained on labels alone"
    usual, shown = Recipe(), [f"distillation {recipe.distillation}"]
    for name in ("distillation_weight", "temperature", "feature_weight"):
        value = getattr(recipe, name)
        if value != getattr(usual, name):
            shown.append(f"{name.replace('_', ' ')} {value:g}")
    return ", ".join(shown)


def _first(space: ElasticSpace, name: str) -> object:
    return next((c.options[0] for c in space.choices if c.name == name), None)


def _count(what: str, n: int) -> str:
    return f"{what} in {n} layer{'s' if n > 1 else ''}" if n else ""
