"""Where features are read: ends of stages, whatever a candidate made of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autocompress.compression.distillation.lesson import Lesson
from autocompress.compression.distillation.points import FeaturePoints, find_points, match_points
from autocompress.compression.distillation.reading import FeatureReader
from autocompress.compression.quantization import simulate_quantization
from autocompress.core.candidate import Candidate, LayerPolicy, Recipe
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.errors import RequestError
from autocompress.graph.folding import fold_batch_norm
from autocompress.graph.inspect import inspect_model
from tests.unit.networks import Concatenated, Flattened, Perceptron, example, graph, space


def _shapes(points: FeaturePoints, name: str) -> list[tuple[int, ...]]:
    reader = FeatureReader(space(name).graph.module, [p.teacher for p in points.stages])
    with torch.no_grad():
        _, seen = reader.read(example(16))
    return [tuple(seen[p.teacher].shape) for p in points.stages]


def test_what_is_trained_along_starts_from_what_training_will_see() -> None:
    """A realised candidate's batch norm statistics may be those of another width."""
    found = space("resnet").graph
    student, teacher = (realise(ElasticModel(found).eval(), Candidate()) for _ in range(2))
    norms = [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.fill_(1e-4)
    before = copy.deepcopy(student.state_dict())
    student.train()
    lesson = Lesson(
        student, Recipe(distillation="self", feature_weight=1.0), loss=F.cross_entropy,
        classification=True, teacher=teacher, points=find_points(found),
    )  # fmt: skip
    x = example(16).repeat(4, 1, 1, 1)
    seen: list[torch.Tensor] = []
    assert lesson._kind is not None
    lesson._kind.prepare = lambda student, teacher: seen.append(student.outputs)  # type: ignore[method-assign]
    lesson.prepare(x)
    assert all(m.training for m in student.modules())
    after = student.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    with torch.no_grad():
        assert torch.allclose(seen[0], student(x), atol=1e-4)


def test_stages_of_a_residual_network_end_with_their_last_blocks() -> None:
    found = space("resnet").graph
    points = find_points(found)
    ends = [blocks[-1].output for blocks in found.stages.values()]
    assert [p.teacher for p in points.stages] == ends
    assert _shapes(points, "resnet") == [(2, 8, 16, 16), (2, 16, 8, 8), (2, 24, 4, 4)]
    assert [p.positions for p in points.stages] == [256, 64, 16]
    assert points.embedding is not None
    assert points.embedding.positions == 1
    assert points.output_rank == 2


def test_a_stage_is_not_cut_inside_the_next_one_s_block() -> None:
    """The expansion before a strided depthwise layer still has the higher resolution."""
    points = find_points(space("mobilenet").graph)
    assert _shapes(points, "mobilenet") == [(2, 12, 8, 8), (2, 16, 4, 4)]


@pytest.mark.parametrize(
    ("kind", "stages", "embedding"),
    [
        (Flattened, ["relu", "max_pool2d"], "flatten"),
        (Concatenated, ["relu_1"], "mean"),
    ],
)
def test_networks_without_blocks(kind: type[nn.Module], stages: list[str], embedding: str) -> None:
    points = find_points(graph(kind))
    assert [p.teacher for p in points.stages][-len(stages) :] == stages
    assert points.embedding is not None
    assert points.embedding.teacher == embedding


def test_a_perceptron_is_divided_into_its_hidden_layers() -> None:
    points = find_points(inspect_model(Perceptron(), (torch.zeros(2, 3, 4, 4),)))
    assert [p.teacher for p in points.stages] == ["relu", "relu_1"]
    assert [p.positions for p in points.stages] == [1, 1]


def test_nothing_is_learnt_before_a_single_layer() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(48, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fc(x.flatten(1))
            return out

    points = find_points(inspect_model(Single(), (torch.zeros(2, 3, 4, 4),)))
    assert points == FeaturePoints()


class _Encoder(nn.Module):
    """Four blocks over tokens, the first token classified."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.Sequential(*(_Mixer() for _ in range(4)))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        out: torch.Tensor = self.head(self.blocks(tokens)[:, 0])
        return out


class _Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return out


def test_blocks_over_tokens_are_divided_evenly_and_have_channels_last() -> None:
    found = inspect_model(_Encoder(), (torch.zeros(2, 3, 8, 8),))
    points = find_points(found)
    ends = [block.output for block in found.blocks]
    assert [p.teacher for p in points.stages] == [ends[0], ends[2], ends[3]]
    assert all(p.channels_last and p.positions == 4 for p in points.stages)
    assert points.embedding is not None
    assert not points.embedding.channels_last


def _student(candidate: Candidate, *, folded: bool = False) -> torch.fx.GraphModule:
    found = space("resnet")
    model = realise(ElasticModel(found.graph, found.techniques).eval(), candidate)
    return fold_batch_norm(model) if folded else model


def test_of_skipped_blocks_what_takes_their_place_is_read() -> None:
    found = space("resnet").graph
    points = find_points(found)
    shorter = Candidate(architecture={"depth:layer1": 1, "depth:layer2": 0})
    matched = match_points(points, found, shorter, _student(shorter))
    first, second = found.stages["layer1"], found.stages["layer2"]
    assert [p.student for p in matched.stages[:2]] == [first[0].output, second[0].input]
    assert [p.teacher for p in matched.stages] == [p.teacher for p in points.stages]
    gone = Candidate(architecture={"depth:layer1": 0})
    assert match_points(points, found, gone, _student(gone)).stages[0].student == first[0].input


def test_folded_norms_and_quantised_tensors() -> None:
    found = space("mobilenet").graph
    elastic = ElasticModel(found, space("mobilenet").techniques).eval()
    policy = LayerPolicy(weight_bits=8, activation_bits=8)
    candidate = Candidate(layers=dict.fromkeys(found.layers, policy))
    points = find_points(found)
    model = fold_batch_norm(realise(elastic, candidate))
    assert match_points(points, found, candidate, model).stages == points.stages
    ops = found.operations(candidate)
    model = simulate_quantization(model, ops, [example(16, batch=8)])
    quantized = match_points(points, found, candidate, model)
    assert [p.student for p in quantized.stages] == ["add_quantized", "add_2_quantized"]
    norm = next(n for n in found.nodes if n.startswith("batch_norm"))
    alone = FeaturePoints((points.stages[0].__class__(norm, norm),), None)
    (point,) = match_points(alone, found, candidate, model).stages
    layer = found.nodes[norm].all_input_nodes[0].name
    assert point.student.removesuffix("_quantized") == layer


def test_two_points_that_become_one_are_one() -> None:
    found = space("resnet").graph
    stage = found.stages["layer1"]
    ends = tuple(
        find_points(found).stages[0].__class__(block.output, block.output) for block in stage
    )
    shorter = Candidate(architecture={"depth:layer1": 1})
    matched = match_points(FeaturePoints(ends), found, shorter, _student(shorter))
    assert [(p.teacher, p.student) for p in matched.stages] == [(stage[-1].output, stage[0].output)]


def test_reading_changes_neither_outputs_nor_the_model() -> None:
    model = _student(Candidate())
    points = find_points(space("resnet").graph)
    before = copy.deepcopy(model.state_dict())
    reader = FeatureReader(model, [p.student for p in points.stages])
    x = example(16)
    outputs, seen = reader.read(x)
    assert torch.equal(outputs, model(x))
    assert set(seen) == {p.student for p in points.stages}
    sum(t.sum() for t in seen.values()).backward()  # type: ignore[union-attr]
    assert model.get_submodule("conv1").weight.grad is not None
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not reader._seen
    assert not reader.env


def test_networks_whose_features_cannot_be_read() -> None:
    points = find_points(space("resnet").graph)
    student = _student(Candidate())
    plain = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))

    def lesson(model: nn.Module, teacher: nn.Module, points: FeaturePoints | None) -> Lesson:
        return Lesson(
            model, Recipe(distillation="attention"), loss=F.cross_entropy, classification=True,
            teacher=teacher, points=points,
        )  # fmt: skip

    with pytest.raises(RequestError, match=r"'attention' compares features \(stages\), and these"):
        lesson(student, student, None)
    with pytest.raises(RequestError, match="the student is a Sequential; its features can only"):
        lesson(plain, student, points)
    with pytest.raises(RequestError, match="the teacher is a Sequential"):
        lesson(student, plain, points)
    other = graph(Flattened).module
    with pytest.raises(RequestError, match="the teacher has no node 'relu_12' to read"):
        lesson(student, other, points)
