"""From scores to an order of channels: at one stroke, or round by round."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autocompress.compression.importance.base import Criterion
from autocompress.compression.importance.evidence import Evidence, Sample
from autocompress.compression.importance.l2 import L2Magnitude
from autocompress.compression.importance.members import readers
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.errors import RequestError
from autocompress.graph.model_graph import ChannelGroup, ModelGraph

#: Rounds of an iterative order: an eighth of every group goes in each.
ROUNDS = 8


@dataclass(frozen=True)
class Ranking:
    """An order of the channels of every group that can be narrowed.

    Attributes:
        criterion: name of the criterion.
        rounds: how often channels were scored; 1 is at one stroke.
        orders: group name to its channels, the most important first; a group that is narrowed
            keeps the first ones.
        unscored: groups that the criterion has nothing to say about, ranked by squared weights.
    """

    criterion: str
    rounds: int
    orders: Mapping[str, tuple[int, ...]]
    unscored: tuple[str, ...] = ()


def rank_channels(
    graph: ModelGraph,
    criterion: Criterion,
    *,
    sample: Sample | None = None,
    rounds: int = 1,
    evidence: Evidence | None = None,
) -> Ranking:
    """Rank the channels of all groups that can be narrowed.

    With several rounds the least important share of every group is taken away, batch norm
    statistics are taken again (for criteria that look at data), and what is left is scored anew
    (Molchanov et al. 2017, arXiv:1611.06440, section 2). The order of removal, reversed, is the
    ranking, so that narrower candidates keep a part of what wider ones keep.

    Channels that go in units, such as attention heads, are ranked by the sums of their scores.

    Args:
        graph: the captured model; its weights are not changed.
        criterion: scores the channels.
        sample: data, for criteria that need it.
        rounds: 1 scores once.
        evidence: what :func:`gather` found on the graph, for the first round; several criteria can
            share it.

    Raises:
        RequestError: the criterion needs data and has none, does not apply to the model, or
            ``rounds`` is no whole number of at least 1.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise RequestError(f"rounds is {rounds!r}; give a whole number of at least 1")
    lacking = sample is None and (evidence is None or rounds > 1)
    if criterion.needs_evidence and lacking:
        raise RequestError(
            f"criterion {criterion.name!r} looks at data; give a sample, or use one that looks at "
            "weights alone"
        )
    free = [group for group in graph.groups.values() if group.rigid is None]
    module = graph.module if rounds == 1 else copy.deepcopy(graph.module)
    kept = {group.name: torch.arange(group.units) for group in free}
    lost: dict[str, list[int]] = {group.name: [] for group in free}
    unscored: set[str] = set()
    for number in range(rounds):
        if criterion.needs_evidence and sample is not None and (number or evidence is None):
            if number:
                reestimate_batch_norm(module, (inputs for inputs, _ in sample.batches))
            evidence = _gathered(module, free, sample)
        scores = _scores(module, free, criterion, evidence, unscored)
        for group in free:
            alive = kept[group.name]
            together = scores[group.name].reshape(group.units, group.unit).sum(1)
            ranked = alive[together[alive].argsort(descending=True, stable=True)]
            places = _places(group.units, number, rounds)
            gone = ranked[places:]
            lost[group.name] = [*gone.tolist(), *lost[group.name]]
            kept[group.name] = ranked[:places].sort().values
            if number < rounds - 1:
                channels = torch.tensor(group.expanded(gone.tolist()), dtype=torch.int64)
                remove_channels(module, group, channels)
    orders = {group.name: group.expanded(lost[group.name]) for group in free}
    return Ranking(criterion.name, rounds, orders, tuple(sorted(unscored)))


def magnitude_orders(graph: ModelGraph) -> dict[str, tuple[int, ...]]:
    """The order by squared weights: what is used where there is nothing to choose by."""
    return dict(rank_channels(graph, L2Magnitude()).orders)


@torch.no_grad()
def remove_channels(module: nn.Module, group: ChannelGroup, channels: torch.Tensor) -> None:
    """Zero all that a group's channels go through, in place, so that nothing depends on them.

    The result computes what the narrowed model computes, but for layer norms, whose means and
    variances still count the zeros.

    Args:
        module: holds the group's members.
        group: whose channels go.
        channels: their numbers within the group.
    """
    for member in group.members:
        layer = module.get_submodule(member.module)
        places = torch.from_numpy(member.indices)[channels].flatten()
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if member.role != "in":
            for tensor in (weight, bias):
                if isinstance(tensor, torch.Tensor):
                    tensor[places] = 0
        elif isinstance(weight, torch.Tensor) and getattr(layer, "groups", 1) == 1:
            weight[:, places] = 0


def _places(channels: int, number: int, rounds: int) -> int:
    """How many channels are left after a round; the last one only orders what is left."""
    return round(channels * (rounds - 1 - number) / rounds) if number < rounds - 1 else 0


def gather(graph: ModelGraph, sample: Sample) -> Evidence:
    """What a sample says about the layers that read channels of groups that can be narrowed."""
    free = [group for group in graph.groups.values() if group.rigid is None]
    return _gathered(graph.module, free, sample)


def _gathered(module: nn.Module, groups: Sequence[ChannelGroup], sample: Sample) -> Evidence:
    return Evidence(module, list(dict.fromkeys(_reader_names(module, groups))), sample)


def _reader_names(module: nn.Module, groups: Sequence[ChannelGroup]) -> Iterator[str]:
    for group in groups:
        for member, _ in readers(module, group):
            yield member.module


def _scores(
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    criterion: Criterion,
    evidence: Evidence | None,
    unscored: set[str],
) -> dict[str, torch.Tensor]:
    found = {group.name: criterion.scores(module, group, evidence) for group in groups}
    missing = {name for name, score in found.items() if score is None}
    if groups and len(missing) == len(groups):
        raise RequestError(
            f"criterion {criterion.name!r} has nothing to look at in this model; use another"
        )
    unscored |= missing
    magnitude = L2Magnitude()
    return {
        group.name: score
        if (score := found[group.name]) is not None
        else _or_zeros(magnitude.scores(module, group, None), group.channels)
        for group in groups
    }


def _or_zeros(score: torch.Tensor | None, channels: int) -> torch.Tensor:
    return torch.zeros(channels) if score is None else score
