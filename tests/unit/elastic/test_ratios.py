"""Pruning ratios from outside: rounded, refused and realised as said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.compression.importance.ranking import rank_channels
from autocompress.compression.importance.registry import get_criterion
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.model import ElasticModel, sort_channels
from autocompress.elastic.ratios import RealisedRatio, candidate_from_ratios
from autocompress.elastic.realise import realise
from autocompress.errors import RequestError
from tests.unit import attention_networks
from tests.unit.networks import Flattened, ResNet, example, graph


def test_what_was_asked_for_is_what_is_realised() -> None:
    found = graph(ResNet)
    candidate, said = candidate_from_ratios(found, {"layer2.0.conv1": 0.5, "layer3.1.conv1": 0.25})
    assert said == [
        RealisedRatio("layer2.0.conv1", 0.5, 16, 8),
        RealisedRatio("layer3.1.conv1", 0.25, 24, 18),
    ]
    assert [entry.ratio for entry in said] == [0.5, 0.25]
    small = realise(ElasticModel(found), candidate)
    weights = dict(small.named_parameters())
    assert weights["layer2.0.conv1.weight"].shape[0] == 8
    assert weights["layer3.1.conv1.weight"].shape[0] == 18
    assert weights["layer3.1.conv2.weight"].shape[1] == 18
    assert small(example(16)).shape == (2, 10)


def test_coupled_layers_are_narrowed_together_under_any_of_their_names() -> None:
    found = graph(ResNet)
    group = found.groups["conv1"]
    candidate, (said,) = candidate_from_ratios(found, {"layer1.2.conv2": 0.5})
    assert (said.group, said.width) == ("conv1", 4)
    assert {n for n, p in candidate.layers.items() if p.width == 4} == set(group.producers)
    same = {"conv1": 0.5, "layer1.2.conv2": 0.5}
    assert candidate_from_ratios(found, same)[0] == candidate


@pytest.mark.parametrize(
    ("ratio", "step", "width", "words"),
    [
        (0.5, 4, 12, None),
        (0.4, 4, 16, "14.4 channels rounded to a multiple of 4"),
        (0.9, 8, 8, "2.4 channels rounded to a multiple of 8"),
        (0.05, 8, 24, "22.8 channels rounded to a multiple of 8, which is all of them"),
        (0.5, 64, 12, None),
        (0.0, 16, 24, None),
    ],
)
def test_rounding_is_said(ratio: float, step: int, width: int, words: str | None) -> None:
    _, (said,) = candidate_from_ratios(graph(ResNet), {"layer3.0.conv1": ratio}, channel_step=step)
    assert said == RealisedRatio("layer3.0.conv1", ratio, 24, width, words)


def test_groups_that_keep_their_width_say_why() -> None:
    found = graph(Flattened)
    rigid = next(name for name, group in found.groups.items() if group.rigid)
    candidate, (said,) = candidate_from_ratios(found, {rigid: 0.5})
    assert candidate == Candidate()
    assert said.width == said.channels
    assert said.reason == "it cannot be narrowed: it is the model's output"


def test_other_choices_are_kept() -> None:
    base = Candidate({"depth:layer1": 2}, {"fc": LayerPolicy(8, 8), "conv1": LayerPolicy(4, 8)})
    candidate, _ = candidate_from_ratios(graph(ResNet), {"conv1": 0.5}, base=base)
    assert candidate.architecture == base.architecture
    assert candidate.policy("fc") == LayerPolicy(8, 8)
    assert candidate.policy("conv1") == LayerPolicy(4, 8, width=4)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 40))
def test_widths_are_multiples_of_the_step(ratio: float, step: int) -> None:
    found = graph(ResNet)
    free = [n for n, g in found.groups.items() if g.rigid is None]
    candidate, said = candidate_from_ratios(found, dict.fromkeys(free, ratio), channel_step=step)
    for entry in said:
        used = min(step, entry.channels // 2)
        assert 1 <= entry.width <= entry.channels
        assert entry.width % used == 0 or entry.width == entry.channels
        wanted = (1 - ratio) * entry.channels
        assert abs(entry.width - wanted) <= max(used, 1)
        assert (entry.reason is None) == (abs(entry.width - wanted) < 1e-9)
    found.operations(candidate)


@pytest.mark.parametrize(
    ("ratios", "step", "words"),
    [
        ({"elsewhere": 0.5}, 1, "'elsewhere' produces no channels of a known group"),
        ({"conv1": 1.0}, 1, r"ratio of 'conv1' is 1.0; it must be in \[0, 1\)"),
        ({"conv1": "half"}, 1, "ratio of 'conv1' is 'half'"),
        ({"conv1": 0.5, "layer1.2.conv2": 0.25}, 1, "can only be narrowed together"),
        ({"conv1": 0.5}, 0, "channel_step is 0"),
    ],
)
def test_nonsense_is_refused(ratios: dict[str, float], step: int, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        candidate_from_ratios(graph(ResNet), ratios, channel_step=step)


def test_any_ranking_decides_which_channels_go() -> None:
    """The realised model of a ranking keeps the first channels of its order."""
    found = graph(ResNet)
    name = "layer2.1.conv1"
    ranking = rank_channels(found, get_criterion("batch_norm_scale"), rounds=4)
    candidate, _ = candidate_from_ratios(found, {name: 0.5})
    small = realise(ElasticModel(found, orders=ranking.orders), candidate)
    original = dict(found.module.named_parameters())
    kept = torch.tensor(ranking.orders[name][:8])
    others = torch.tensor(ranking.orders[found.members_of[name][0][0].name])
    assert others.numel()
    bias = dict(small.named_parameters())["layer2.1.bn1.bias"]
    assert torch.equal(bias, original["layer2.1.bn1.bias"][kept])


def test_orders_that_are_none_are_refused() -> None:
    found = graph(ResNet)
    with pytest.raises(RequestError, match="no permutation of its 8 channels"):
        sort_channels(found, {"conv1": (0, 1, 2)})
    with pytest.raises(RequestError, match="no group of free width"):
        ElasticModel(found, orders={"fc": (0,)})


@pytest.mark.parametrize(("step", "widths"), [(1, (8, 4)), (16, (8, 4)), (8, (8, 4))])
def test_whole_heads_go(step: int, widths: tuple[int, int]) -> None:
    graph = attention_networks.graph("separate")
    names = [group.name for group in graph.groups.values() if group.unit > 1]
    ratios = dict(zip(names, (0.4, 0.9), strict=True))
    candidate, found = candidate_from_ratios(graph, ratios, channel_step=step)
    assert tuple(one.width for one in found) == widths
    assert tuple(candidate.policy(name).width for name in names) == widths
    graph.operations(candidate)
