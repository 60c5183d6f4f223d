"""Pruning ratios from outside, without a search: to a candidate, with what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lcm

from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.errors import RequestError
from autocompress.graph.model_graph import ChannelGroup, ModelGraph


@dataclass(frozen=True, slots=True)
class RealisedRatio:
    """What became of one group's ratio.

    Attributes:
        group: name of the channel group.
        asked: share of its channels that was to go.
        channels: how many it has.
        width: how many stay.
        reason: why it is not what was asked for, or None where it is.
    """

    group: str
    asked: float
    channels: int
    width: int
    reason: str | None = None

    @property
    def ratio(self) -> float:
        """Share of the channels that goes."""
        return 1.0 - self.width / self.channels


def candidate_from_ratios(
    graph: ModelGraph,
    ratios: Mapping[str, float],
    *,
    channel_step: int = 1,
    base: Candidate | None = None,
) -> tuple[Candidate, list[RealisedRatio]]:
    """A candidate whose channel groups are pruned as given, and what became of every ratio.

    Widths are rounded to the nearest multiple of ``channel_step`` (of both, where channels go in
    units such as attention heads), at least one; a ratio that rounds to all channels prunes
    nothing. Groups that cannot be narrowed keep their width. Both are said in the answer. Which
    channels go is up to the :class:`~autocompress.elastic.model.ElasticModel` that the candidate is
    realised with; it is a candidate of a search space only if the space offers these widths.

    Args:
        graph: the captured model (``space.graph``).
        ratios: name of a channel group, or of a layer that produces its channels, to the share of
            channels to remove, in [0, 1).
        channel_step: widths that run well on the device
            (``profile.capabilities.channel_step``); groups of fewer channels take half of them as
            their step, or their unit.
        base: the candidate whose other choices are kept; None changes nothing else.

    Returns:
        The candidate, and an entry a group in the order given.

    Raises:
        RequestError: no such layer, a ratio out of range, or two different ones for one group.
    """
    if isinstance(channel_step, bool) or not isinstance(channel_step, int) or channel_step < 1:
        raise RequestError(f"channel_step is {channel_step!r}; give a whole number of at least 1")
    candidate = base or Candidate()
    layers = dict(candidate.layers)
    found: list[RealisedRatio] = []
    for group, ratio in _by_group(graph, ratios).items():
        done = _realised(graph.groups[group], ratio, channel_step)
        found.append(done)
        if done.width == done.channels:
            continue
        for name in graph.groups[group].producers:
            if name in graph.layers:
                layers[name] = replace(layers.get(name, LayerPolicy()), width=done.width)
    return candidate.with_layers(layers), found


def _by_group(graph: ModelGraph, ratios: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    given: dict[str, str] = {}
    for name, ratio in ratios.items():
        group = graph.groups.get(name) or graph.group_of.get(name)
        if group is None:
            raise RequestError(
                f"{name!r} produces no channels of a known group; known are "
                f"{', '.join(graph.groups)}"
            )
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise RequestError(f"the ratio of {name!r} is {ratio!r}; it must be in [0, 1)")
        if found.setdefault(group.name, float(ratio)) != ratio:
            raise RequestError(
                f"{given[group.name]!r} and {name!r} can only be narrowed together, but their "
                f"ratios are {found[group.name]} and {ratio}; give one"
            )
        given.setdefault(group.name, name)
    return found


def _realised(group: ChannelGroup, ratio: float, channel_step: int) -> RealisedRatio:
    channels = group.channels
    if group.rigid is not None:
        reason = f"it cannot be narrowed: {group.rigid}" if ratio else None
        return RealisedRatio(group.name, ratio, channels, channels, reason)
    step = lcm(channel_step, group.unit)
    if step > max(1, channels // 2):
        step = group.unit if group.unit > 1 else max(1, channels // 2)
    wanted = (1.0 - ratio) * channels
    width = min(channels, max(step, round(wanted / step) * step))
    if not ratio:
        width = channels
    if abs(width - wanted) < 1e-9:
        return RealisedRatio(group.name, ratio, channels, width)
    said = f"{wanted:g} channels rounded to a multiple of {step}"
    if width == channels:
        said += ", which is all of them" if channels % step == 0 else ": nothing goes"
    return RealisedRatio(group.name, ratio, channels, width, said)
