"""Attention rewritten so that its heads are channels like others.

Shapes such as ``(n, length, heads, head_dim)`` stand in a captured graph as numbers, and a packed
projection lays queries, keys and values side by side. Both tie a layer to its number of heads.
Here queries, keys and values get a linear layer each, whose outputs are heads one after the other,
and what follows finds out at run time how many heads there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from autocompress.graph.attention_form import (
    Attention,
    Facts,
    NotFollowedError,
    find_attentions,
    heads_of,
    joined_behind,
    why,
)
from autocompress.graph.attention_trial import Trial
from autocompress.graph.attention_writing import HeadCore, Plan, rewritten
from autocompress.graph.empty_rows import written_out
from autocompress.graph.model_graph import Skipped


def free_heads(
    module: fx.GraphModule, inputs: Sequence[torch.Tensor]
) -> tuple[fx.GraphModule, list[HeadCore], list[Skipped]]:
    """``module`` with every attention that can be followed rewritten, and why others were not.

    Handles queries, keys and values from one, two or three linear layers, in whatever order views
    and transposes divide and join heads; written as one call or with two products and a softmax.
    A rewritten graph shares the unchanged layers of ``module`` and gives the same outputs. An
    attention that stays is written out where its mask may leave a row nothing to look at.

    Args:
        module: a captured graph; left as it is.
        inputs: example inputs, batch first.

    Returns:
        The graph (``module`` itself where nothing changed), its rewritten attentions in execution
        order, and those that stay as they are.
    """
    trial = Trial.of(module, inputs)
    plans, skipped = _plans(module, trial.facts)
    made, cores, more = _followed(module, plans, trial)
    made, unguarded = _guarded(made, trial)
    return made, cores, [*skipped, *more, *unguarded]


def _guarded(module: fx.GraphModule, trial: Trial) -> tuple[fx.GraphModule, list[Skipped]]:
    """The graph with calls written out whose masks may hide whole rows, if it gives the same."""
    reason = "writing it out changes the model's outputs"
    try:
        made = written_out(module, trial.facts)
        if made is None or trial.agrees(made):
            return module if made is None else made, []
    except Exception as error:  # operators of any model may refuse what is written for them
        reason = why(error)
    text = f"an exported file may differ where a row has nothing to look at: {reason}"
    return module, [Skipped("(masks of attention)", text)]


def _followed(
    module: fx.GraphModule, plans: Sequence[Plan], trial: Trial
) -> tuple[fx.GraphModule, list[HeadCore], list[Skipped]]:
    """As many of the plans carried out as go together, and why the others do not."""
    if not plans:
        return module, [], []
    done = _attempt(module, plans, trial)
    if not isinstance(done, str):
        return *done, []
    skipped: list[Skipped] = []
    kept: list[Plan] = []
    best: tuple[fx.GraphModule, list[HeadCore]] = (module, [])
    for plan in plans:
        tried = _attempt(module, [*kept, plan], trial)
        if isinstance(tried, str):
            skipped.append(_skipped(plan.attention.end, tried))
        else:
            kept, best = [*kept, plan], tried
    return *best, skipped


def _attempt(
    module: fx.GraphModule, plans: Sequence[Plan], trial: Trial
) -> tuple[fx.GraphModule, list[HeadCore]] | str:
    """The graph with these attentions rewritten, or why it cannot be."""
    try:
        made, cores = rewritten(module, plans, trial.facts)
        agrees = trial.agrees(made)
    except Exception as error:  # operators of any model may refuse what is written for them
        return why(error)
    return (made, cores) if agrees else "rewriting it changes the model's outputs"


def _plans(module: fx.GraphModule, facts: Facts) -> tuple[list[Plan], list[Skipped]]:
    plans: list[Plan] = []
    skipped: list[Skipped] = []
    for found in find_attentions(module, facts):
        if not isinstance(found, Attention):
            skipped.append(_skipped(*found))
            continue
        try:
            plans.append(_plan(module, found, facts))
        except Exception as error:
            skipped.append(_skipped(found.end, why(error)))
    return plans, skipped


def _skipped(node: fx.Node, reason: str) -> Skipped:
    path = [name for name in node.meta.get("module_path", ()) if name]
    return Skipped(path[-1] if path else node.name, f"attention heads kept: {reason}")


def _plan(module: fx.GraphModule, attention: Attention, facts: Facts) -> Plan:
    query, key, value = attention.operands
    operands = (
        heads_of(module, query, facts),
        heads_of(module, key, facts, transposed=attention.transposed),
        heads_of(module, value, facts),
    )
    if len({len(one.channels) for one in operands}) > 1:
        raise NotFollowedError("queries, keys and values have different numbers of heads")
    if len({one.channels.shape[1] for one in operands}) > 1:
        raise NotFollowedError("queries, keys and values have heads of different width")
    if operands[2].factor != 1.0:
        raise NotFollowedError("its values are multiplied before they are used")
    drawn_from = [(str(one.layer.target), frozenset(one.channels.flatten().tolist()))
                  for one in operands]  # fmt: skip
    for i, (name, channels) in enumerate(drawn_from):
        if any(other == name and channels & taken for other, taken in drawn_from[:i]):
            raise NotFollowedError("queries, keys and values share channels")
    joined = joined_behind(attention, operands[0], operands[2].channels.shape[1], facts)
    return Plan(attention, operands, joined)
