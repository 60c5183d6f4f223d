"""Criteria for channels: by hand on tiny models, under permutations, and round by round."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocompress.compression.importance.evidence import Sample
from autocompress.compression.importance.ranking import (
    Ranking,
    gather,
    rank_channels,
    remove_channels,
)
from autocompress.compression.importance.registry import CRITERIA, get_criterion
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel, reorder_channels
from autocompress.elastic.realise import realise
from autocompress.errors import DataError, RequestError
from autocompress.evaluation.task import cross_entropy
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ChannelGroup, ModelGraph
from tests.unit.networks import (
    BasicBlock,
    Concatenated,
    Flattened,
    MobileNet,
    ResNet,
    example,
    graph,
)


class Pair(nn.Module):
    """Three hidden channels between two linear layers: small enough to do by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3, bias=False)
        self.norm = nn.BatchNorm1d(3, eps=0.0)
        self.last = nn.Linear(3, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]]))
            self.norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
            self.last.weight.copy_(torch.tensor([[2.0, -1.0, 1.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))  # type: ignore[no-any-return]


def squares(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Half the mean squared error: its Hessian to the outputs is 1."""
    return 0.5 * (outputs - targets).pow(2).mean()


X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
#: What the last layer reads: relu(gamma * first(x)).
HIDDEN = torch.tensor([[1.0, 0.0, 1.5], [2.0, 2.0, 0.5]])
ERRORS = torch.tensor([1.0, -1.0])  # outputs minus targets
TARGETS = (HIDDEN @ torch.tensor([2.0, -1.0, 1.0]) - ERRORS)[:, None]


@pytest.fixture(scope="module")
def pair() -> ModelGraph:
    return inspect_model(Pair().eval(), (X[:1],))


def scores(found: ModelGraph, name: str, sample: Sample | None = None) -> torch.Tensor:
    (group,) = [g for g in found.groups.values() if g.rigid is None]
    evidence = None if sample is None else gather(found, sample)
    score = get_criterion(name).scores(found.module, group, evidence)
    assert score is not None
    return score


def one_batch(probes: int = 1) -> Sample:
    return Sample([(X, TARGETS)] * probes, squares)


def _unit(*values: float) -> torch.Tensor:
    found = torch.tensor(values, dtype=torch.float32)
    return found / found.mean()


def test_l1_by_hand(pair: ModelGraph) -> None:
    expected = (_unit(3, 1, 4) + _unit(1, 2, 0.5) + _unit(2, 1, 1)) / 3
    assert torch.allclose(scores(pair, "l1"), expected)


def test_l2_by_hand(pair: ModelGraph) -> None:
    expected = (_unit(5, 1, 10) + _unit(1, 4, 0.25) + _unit(4, 1, 1)) / 3
    assert torch.allclose(scores(pair, "l2"), expected)


def test_batch_norm_scale_by_hand(pair: ModelGraph) -> None:
    assert torch.allclose(scores(pair, "batch_norm_scale"), _unit(1, 2, 0.5))


def test_activation_by_hand(pair: ModelGraph) -> None:
    assert torch.allclose(scores(pair, "activation", one_batch()), _unit(1.5, 1, 1))


def test_share_of_zeros_by_hand(pair: ModelGraph) -> None:
    assert torch.allclose(scores(pair, "apoz", one_batch()), torch.tensor([1.0, 0.5, 1.0]))


def test_taylor_by_hand(pair: ModelGraph) -> None:
    """The derivative of an example's half squared error to a gate is error * w * h."""
    gates = ERRORS[:, None] * torch.tensor([2.0, -1.0, 1.0]) * HIDDEN
    assert torch.allclose(scores(pair, "taylor", one_batch()), gates.pow(2).mean(0))


def test_hessian_by_hand(pair: ModelGraph) -> None:
    """The Hessian to the last layer's weights is the mean of h h^T; many probes find its trace."""
    trace = HIDDEN.pow(2).mean(0)
    expected = trace * torch.tensor([4.0, 1.0, 1.0]) / 2
    found = scores(pair, "hessian", one_batch(400))
    assert torch.allclose(found, expected, rtol=0.15)
    assert found.argsort().tolist() == expected.argsort().tolist()


def test_evidence_is_the_same_in_small_batches(pair: ModelGraph) -> None:
    """Gradients are an example's own, whatever batch it comes in."""
    single = Sample([(X[:1], TARGETS[:1]), (X[1:], TARGETS[1:])], squares)
    for name in ("taylor", "activation", "apoz"):
        assert torch.allclose(scores(pair, name, single), scores(pair, name, one_batch()))


def test_evidence_leaves_the_model_alone(pair: ModelGraph) -> None:
    before = copy.deepcopy(pair.module.state_dict())
    pair.module.train()
    evidence = gather(pair, one_batch())
    assert evidence.activations
    assert evidence.gate_gradients
    assert evidence.traces
    assert pair.module.training
    pair.module.eval()
    assert all(torch.equal(before[n], t) for n, t in pair.module.state_dict().items())
    assert not any(m._forward_pre_hooks for m in pair.module.modules())
    assert all(p.grad is None for p in pair.module.parameters())


class Scaled(nn.Module):
    """A residual stage of 6 channels whose channel ``i`` matters ``i + 1`` times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1, bias=False)
        self.block = BasicBlock(6, 6)
        self.fc = nn.Linear(6, 4)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.ones_(module.weight)
            for conv in (self.stem, self.block.conv2):
                conv.weight.mul_(torch.arange(1.0, 7)[:, None, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.block(torch.relu(self.stem(x))).mean((2, 3)))
        return out


def images(found: ModelGraph, batches: int = 3) -> Sample:
    size = found.example_inputs[0].shape[-1]
    x = [example(size, 4, seed=i) for i in range(batches)]
    classes = found.module(x[0]).shape[1]
    return Sample([(inputs, torch.arange(4) % classes) for inputs in x], cross_entropy)


@pytest.mark.parametrize("name", [n for n in CRITERIA if n != "batch_norm_scale"])
def test_channels_that_matter_less_score_less(name: str) -> None:
    found = inspect_model(Scaled().eval(), (example(),))
    sample = Sample([(example().abs(), torch.zeros(2, dtype=torch.long))], cross_entropy)
    score = get_criterion(name).scores(found.module, found.groups["stem"], gather(found, sample))
    assert score is not None
    assert score.shape == (6,)
    if name in ("l1", "l2", "activation"):
        assert score.argsort().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["l1", "l2", "batch_norm_scale", "activation"])
def test_no_member_dominates_by_its_scale(name: str) -> None:
    """Each member's scores are normalised to mean 1, so that the mean over members is 1."""
    for kind in (ResNet, MobileNet):
        found = graph(kind)
        evidence = gather(found, images(found))
        for group in found.groups.values():
            if group.rigid is None:
                score = get_criterion(name).scores(found.module, group, evidence)
                assert score is not None
                assert float(score.mean()) == pytest.approx(1.0, abs=1e-4)
                assert float(score.min()) >= 0


@pytest.mark.parametrize("kind", [ResNet, MobileNet, Concatenated, Flattened])
@pytest.mark.parametrize("name", CRITERIA)
def test_scores_follow_the_channels(name: str, kind: type[nn.Module]) -> None:
    """Stored in another order, channels have the same scores in that order."""
    found = graph(kind)
    free = {n: g for n, g in found.groups.items() if g.rigid is None}
    generator = torch.Generator().manual_seed(5)
    orders = {n: torch.randperm(g.channels, generator=generator) for n, g in free.items()}
    moved = copy.copy(found)
    moved.module = reorder_channels(found, orders)
    criterion, sample = get_criterion(name), images(found)
    before, after = gather(found, sample), gather(moved, sample)
    if name == "hessian":  # probes belong to places: only the exact trace follows the channels
        for n in before.traces:
            assert before.traces[n].shape == after.traces[n].shape
        return
    for n, group in free.items():
        score = criterion.scores(found.module, group, before)
        other = criterion.scores(moved.module, group, after)
        assert (score is None) == (other is None)
        if score is not None and other is not None:
            assert torch.allclose(score[orders[n]], other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("name", CRITERIA)
def test_every_order_is_a_permutation_and_the_same_again(name: str, rounds: int) -> None:
    for kind in (ResNet, MobileNet):
        found = graph(kind)
        before = copy.deepcopy(found.module.state_dict())
        first, second = (
            rank_channels(found, get_criterion(name), sample=images(found), rounds=rounds)
            for _ in range(2)
        )
        assert first == second
        assert (first.criterion, first.rounds) == (name, rounds)
        free = {n: g for n, g in found.groups.items() if g.rigid is None}
        assert set(first.orders) == set(free)
        for n, order in first.orders.items():
            assert sorted(order) == list(range(free[n].channels))
        assert all(torch.equal(before[n], t) for n, t in found.module.state_dict().items())


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 9), st.integers(0, 3))
def test_an_iterative_order_is_nested(rounds: int, seed: int) -> None:
    """What a later round keeps is a part of what the rounds before it kept."""
    torch.manual_seed(seed)
    found = inspect_model(Scaled().eval(), (example(),))
    for parameter in found.module.parameters():
        nn.init.normal_(parameter)
    whole = rank_channels(found, get_criterion("l2"), rounds=rounds)
    (group,) = [found.groups[n] for n in whole.orders if n == "stem"]
    order = whole.orders["stem"]
    for keep in range(1, group.channels):
        assert set(order[:keep]) < set(order[: keep + 1])
    # the first channels to go are those that a single scoring puts last
    first = round(group.channels * (rounds - 1) / rounds)
    once = rank_channels(found, get_criterion("l2")).orders["stem"]
    assert order[first:] == once[first:]


class Chain(nn.Module):
    """The last channel of ``a`` is read strongly, but by the weakest channel of ``b`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4, bias=False) for _ in range(3))
        reading = [[0, 0, 0, 4.5], [1, 1, 3, 0.5], [1, 2, 3, 0.5], [1, 2, 2, 0.5]]
        with torch.no_grad():
            self.a.weight.copy_(torch.eye(4))
            self.b.weight.copy_(torch.tensor(reading))
            self.c.weight.copy_(torch.diag(torch.tensor([0.1, 1.0, 1.0, 1.0])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))  # type: ignore[no-any-return]


def test_a_later_round_sees_what_earlier_ones_left() -> None:
    """By hand: columns of ``b`` sum to 3, 5, 8, 6; without its first row to 3, 5, 8, 1.5."""
    found = inspect_model(Chain().eval(), (torch.ones(1, 4),))
    l1 = get_criterion("l1")
    assert rank_channels(found, l1).orders["a"] == (2, 3, 1, 0)
    assert rank_channels(found, l1, rounds=4).orders["a"] == (2, 1, 3, 0)
    assert rank_channels(found, l1).orders["b"][-1] == 0


@pytest.mark.parametrize("kind", [ResNet, MobileNet, Concatenated, Flattened])
def test_removing_is_narrowing(kind: type[nn.Module]) -> None:
    """Zeroed members compute what the narrowed model computes."""
    found = graph(kind)
    module = copy.deepcopy(found.module)
    orders: dict[str, tuple[int, ...]] = {}
    layers: dict[str, LayerPolicy] = {}
    for name, group in found.groups.items():
        if group.rigid is not None or group.channels < 2:
            continue
        keep = group.channels // 2
        order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(3))
        remove_channels(module, group, order[keep:])
        orders[name] = tuple(order.tolist())
        layers |= {n: LayerPolicy(width=keep) for n in group.producers if n in found.layers}
    small = realise(ElasticModel(found, (), orders=orders), Candidate(layers=layers))
    size = found.example_inputs[0].shape[-1]
    x = example(size, 8)
    with torch.no_grad():
        assert torch.allclose(module(x), small(x), atol=1e-4)
    for model in (module, small):
        reestimate_batch_norm(model, [x])
    with torch.no_grad():
        assert torch.allclose(module(x), small(x), atol=1e-3)


def test_groups_without_what_is_looked_at_fall_back_to_magnitude() -> None:
    torch.manual_seed(0)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normed = nn.Conv2d(3, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.plain = nn.Conv2d(8, 6, 1)
            self.fc = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.plain(torch.relu(self.norm(self.normed(x)))))
            return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]

    found = inspect_model(Mixed().eval(), (example(),))
    ranking: Ranking = rank_channels(found, get_criterion("batch_norm_scale"))
    assert ranking.unscored == ("plain",)
    magnitude = rank_channels(found, get_criterion("l2"))
    assert ranking.orders["plain"] == magnitude.orders["plain"]


def test_what_cannot_be_ranked_is_refused(pair: ModelGraph) -> None:
    with pytest.raises(RequestError, match="looks at data; give a sample"):
        rank_channels(pair, get_criterion("taylor"))
    with pytest.raises(RequestError, match=r"nothing to look at in this model"):
        rank_channels(graph(Flattened), get_criterion("batch_norm_scale"))
    with pytest.raises(RequestError, match="rounds is 0"):
        rank_channels(pair, get_criterion("l2"), rounds=0)
    with pytest.raises(RequestError, match="criterion is 'taste'; use one of l2"):
        get_criterion("taste")
    with pytest.raises(DataError, match="at least one batch"):
        Sample([], cross_entropy)


def test_a_model_without_second_derivatives_is_refused() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return grad * 2

    found = inspect_model(Pair().eval(), (X[:1],))
    sample = Sample([(X, TARGETS)], lambda o, t: squares(Once.apply(o), t))
    with pytest.raises(RequestError, match="no second derivatives"):
        rank_channels(found, get_criterion("hessian"), sample=sample)


def test_every_group_member_is_followed() -> None:
    """A group whose readers see several features a channel sums them."""
    found = graph(Flattened)
    group: ChannelGroup = found.groups["conv"]
    fc = found.module.get_submodule("fc")
    assert isinstance(fc, nn.Linear)
    evidence = gather(found, images(found))
    rows = evidence.gate_gradients["fc"]
    expected = rows.reshape(len(rows), 8, 16).sum(2).pow(2).mean(0)
    score = get_criterion("taylor").scores(found.module, group, evidence)
    assert score is not None
    assert torch.allclose(score, expected)
