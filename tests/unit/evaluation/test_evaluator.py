"""A candidate's accuracy at each fidelity, and its way to disk and back; on real digits."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import fx, nn

from autocompress.compression.registry import make_techniques
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import DISTILLATIONS, Candidate, LayerPolicy, Recipe
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.realise import realise
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import DivergedError, StorageError
from autocompress.evaluation import evaluator as module
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import (
    QUANTIZED_RATE,
    STATISTICS,
    UNCHANGED_RATE,
    CandidateEvaluator,
    Effort,
    checkpoint_path,
    save_tensors,
    uniform,
)
from autocompress.evaluation.fine_tune import FineTuned, fine_tune
from autocompress.evaluation.task import Task
from tests.unit.evaluation.test_fine_tune import ALONE
from tests.unit.networks import EVERYTHING, ResNet

EFFORT = Effort(short_steps=4, final_steps=10, val_limit=100)


@cache
def _data() -> Data:
    return Data.load("digits")


@cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    model = ResNet(channels=1, widths=(8, 16))
    fine_tune(model, _data().train, Task(), recipe=ALONE, steps=60, seed=0)
    return model.eval()


@cache
def _space() -> ElasticSpace:
    return ElasticSpace.from_model(
        _trained(), (_data().example()[0],), techniques=make_techniques(None),
        capabilities=EVERYTHING,
    )  # fmt: skip


def _evaluator(checkpoints: Path | None = None, **options: object) -> CandidateEvaluator:
    settings: dict[str, object] = {"effort": EFFORT, "teacher": _trained(), **options}
    return CandidateEvaluator(
        ElasticModel(_space().graph, _space().techniques).eval(), _data(), Task(),
        checkpoints=checkpoints, **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def _small() -> Candidate:
    """Narrow, short, sparse, of low rank and in integers."""
    group = _space().graph.groups["conv1"]
    narrow = dict.fromkeys(group.producers, LayerPolicy(width=4))
    integers = LayerPolicy(weight_bits=8, activation_bits=8)
    return Candidate(
        architecture={"depth:layer1": 2},
        layers={
            **narrow,
            "fc": replace(integers, sparsity=0.5),
            "layer2.1.conv1": LayerPolicy(rank=4),
            "layer2.2.conv2": integers,
        },
    )


def test_the_original_keeps_its_accuracy() -> None:
    assert EFFORT.val_limit is not None
    subset = _data().val.subset(EFFORT.val_limit, seed=0)
    expected = evaluate_model(_trained(), subset, Task())
    found = _evaluator().evaluate(Candidate(), fidelity=Fidelity.INHERITED, seed=0)
    assert found.ok
    assert found.metrics == {"accuracy": pytest.approx(expected, abs=0.011)}
    assert found.details["metric"] == found.metrics["accuracy"]
    assert found.train_steps == 0
    assert expected > 0.8


def test_so_it_does_in_integers_without_new_statistics() -> None:
    """Bit-widths alone do not change what batch norm sees; its own statistics are the best."""
    candidate = uniform(list(_space().graph.layers), 8, 8)
    assert candidate.policy("conv1") == LayerPolicy(weight_bits=8, activation_bits=8)
    found = _evaluator().evaluate(candidate, fidelity=Fidelity.INHERITED, seed=0)
    full = _evaluator().evaluate(Candidate(), fidelity=Fidelity.INHERITED, seed=0)
    assert found.metrics["accuracy"] > full.metrics["accuracy"] - 0.06


def _trainings(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch, **options: bool
) -> list[tuple[int, float, float]]:
    """Steps, learning rate and weight of distillation of each training."""
    found: list[tuple[int, float, float]] = []

    def note(*args: object, steps: int, recipe: Recipe, **more: object) -> FineTuned:
        found.append((steps, recipe.learning_rate, recipe.distillation_weight))
        return FineTuned(steps, 0.0)

    monkeypatch.setattr(module, "fine_tune", note)
    _evaluator(None, **options).prepare(candidate, steps=10, seed=0)
    return found


def test_bit_widths_of_a_trained_model_are_trained_on_its_answers_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rate = EFFORT.learning_rate
    integers = uniform(list(_space().graph.layers), 8, 8)
    assert _trainings(integers, monkeypatch) == [(10, UNCHANGED_RATE * rate, 1.0)]
    usual = Recipe().distillation_weight
    in_two = [(6, rate, usual), (4, QUANTIZED_RATE * rate, usual)]
    assert _trainings(_small(), monkeypatch) == in_two
    assert _trainings(integers, monkeypatch, trained=False) == in_two
    labels = replace(integers, recipe=Recipe(distillation_weight=0.0))
    assert _trainings(labels, monkeypatch) == [(10, UNCHANGED_RATE * rate, 0.0)]


class _Tower(nn.Module):
    """Residual blocks of one width, as those of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 16)
        self.blocks = nn.ModuleList(_Block() for _ in range(3))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(x)
        return out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.down(self.up(x).relu())
        return out


@pytest.mark.parametrize("taught", [True, False], ids=["teacher", "alone"])
def test_a_candidate_too_short_for_its_kind_of_distillation_learns_by_another(
    taught: bool,
) -> None:
    torch.manual_seed(0)
    tower = _Tower().eval()
    space = ElasticSpace.from_model(
        tower, (_data().example()[0],), techniques=(), capabilities=EVERYTHING
    )
    ((stage, blocks),) = space.graph.stages.items()
    evaluator = CandidateEvaluator(
        ElasticModel(space.graph, ()).eval(), _data(), Task(), effort=EFFORT,
        teacher=tower if taught else None,
    )  # fmt: skip
    recipe = Recipe(distillation="self")
    found = {
        depth: evaluator.evaluate(
            Candidate(architecture={f"depth:{stage}": depth}, recipe=recipe),
            fidelity=Fidelity.SHORT, seed=0,
        ).details.get("distillation")
        for depth in (1, len(blocks))
    }  # fmt: skip
    assert found == {1: "response" if taught else "none", len(blocks): None}


def test_a_narrower_candidate_gets_statistics_of_its_own() -> None:
    group = _space().graph.groups["layer1.0.conv1"]
    narrow = Candidate(layers=dict.fromkeys(group.producers, LayerPolicy(width=4)))
    evaluator = _evaluator()
    model = realise(evaluator.elastic, narrow)
    seen = _data().train.batches(128, shuffle=True, seed=0, limit=STATISTICS)
    reestimate_batch_norm(model, (inputs for inputs, _ in seen))
    x = _data().example(8)[0]
    prepared = evaluator.prepare(narrow, steps=0, seed=0)
    with torch.no_grad():
        assert torch.allclose(prepared.model(x), model(x), atol=1e-4)


@pytest.mark.parametrize(
    ("fidelity", "steps"),
    [(Fidelity.INHERITED, 0), (Fidelity.SHORT, 4), (Fidelity.FINAL, 10)],
)
def test_every_fidelity_trains_as_long_as_it_says(fidelity: Fidelity, steps: int) -> None:
    found = _evaluator().evaluate(_small(), fidelity=fidelity, seed=0)
    assert found.train_steps == steps
    assert 0 <= found.metrics["accuracy"] <= 1


def test_the_shared_weights_are_not_changed() -> None:
    evaluator = _evaluator()
    before = copy.deepcopy(evaluator.elastic.state_dict())
    evaluator.evaluate(_small(), fidelity=Fidelity.FINAL, seed=0)
    assert all(torch.equal(before[n], t) for n, t in evaluator.elastic.state_dict().items())
    assert evaluator.elastic.candidate == Candidate()


def test_same_seed_same_result_also_in_another_process_s_copy() -> None:
    evaluator = _evaluator()
    copied = cloudpickle.loads(cloudpickle.dumps(evaluator))  # our own bytes
    models = [
        e.prepare(_small(), steps=5, seed=seed).model.state_dict()
        for e, seed in ((evaluator, 1), (evaluator, 1), (copied, 1), (evaluator, 2))
    ]
    for other in models[1:3]:
        assert all(torch.equal(models[0][n], t) for n, t in other.items())
    assert any(not torch.equal(models[0][n], t) for n, t in models[3].items())


def test_zeros_survive_the_fine_tune() -> None:
    prepared = _evaluator().prepare(_small(), steps=10, seed=0)
    weight = prepared.model.get_submodule("fc").weight
    assert isinstance(weight, torch.Tensor)
    assert int((weight == 0).sum()) == round(0.5 * weight.numel())


def test_checkpoints_restore_the_same_outputs(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path / "checkpoints")
    found = evaluator.evaluate(_small(), fidelity=Fidelity.FINAL, seed=0)
    path = checkpoint_path(tmp_path / "checkpoints", _small())
    assert [p.name for p in path.parent.iterdir()] == [f"{_small().id}.safetensors"]
    restored = _evaluator(tmp_path / "checkpoints").restore(_small())
    again = evaluate_model(restored.model, _data().val, Task())
    assert again == found.metrics["accuracy"]
    steps = EFFORT.final_steps if found.details["kept"] == "trained" else 0
    expected = _evaluator().prepare(_small(), steps=steps, seed=0)
    x = _data().example(16)[0]
    with torch.no_grad():
        assert torch.equal(restored.model(x), expected.model(x))


def test_a_training_that_harms_is_not_kept(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path, effort=replace(EFFORT, learning_rate=3.0))
    found = evaluator.evaluate(Candidate(), fidelity=Fidelity.FINAL, seed=0)
    assert found.details["kept"] == "untrained"
    assert found.train_steps == EFFORT.final_steps
    untrained = evaluate_model(_trained(), _data().val, Task())
    assert found.metrics["accuracy"] == pytest.approx(untrained, abs=0.011)
    restored = evaluator.restore(Candidate()).model
    assert evaluate_model(restored, _data().val, Task()) == found.metrics["accuracy"]


def test_lower_fidelities_save_nothing(tmp_path: Path) -> None:
    _evaluator(tmp_path).evaluate(_small(), fidelity=Fidelity.SHORT, seed=0)
    assert not list(tmp_path.iterdir())


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _scrambled(path: Path) -> None:
    path.write_bytes(b"not a checkpoint at all")


def _another(path: Path) -> None:
    save_tensors({"elsewhere.weight": torch.zeros(3)}, path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncated, _scrambled, _another, _empty, Path.unlink])
def test_a_damaged_checkpoint(tmp_path: Path, damage: object) -> None:
    evaluator = _evaluator(tmp_path)
    evaluator.evaluate(_small(), fidelity=Fidelity.FINAL, seed=0)
    path = checkpoint_path(tmp_path, _small())
    assert callable(damage)
    damage(path)
    with pytest.raises(StorageError, match="cannot be used") as caught:
        evaluator.restore(_small())
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 5


def test_nowhere_to_restore_from() -> None:
    with pytest.raises(StorageError, match="no folder"):
        _evaluator().restore(_small())


def test_tensors_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        save_tensors({"a": torch.zeros(2)}, tmp_path / "file" / "model.safetensors")


def test_a_loss_that_is_not_finite() -> None:
    evaluator = _evaluator(effort=replace(EFFORT, learning_rate=1e30))
    with pytest.raises(DivergedError):
        evaluator.evaluate(_small(), fidelity=Fidelity.FINAL, seed=0)


def test_a_deadline_in_seconds_holds_for_the_final_fidelity_only() -> None:
    evaluator = _evaluator(effort=replace(EFFORT, final_seconds=-1.0))
    final = evaluator.evaluate(_small(), fidelity=Fidelity.FINAL, seed=0)
    short = evaluator.evaluate(_small(), fidelity=Fidelity.SHORT, seed=0)
    assert (final.train_steps, short.train_steps) == (0, 4)


def _graph_teacher() -> fx.GraphModule:
    return realise(ElasticModel(_space().graph, _space().techniques).eval(), Candidate())


@pytest.mark.parametrize("kind", DISTILLATIONS)
@pytest.mark.parametrize("captured", [True, False], ids=["realised teacher", "user's teacher"])
def test_every_kind_trains_a_candidate_in_floats_and_in_integers(kind: str, captured: bool) -> None:
    """Narrow, shorter, of low rank and quantised: both phases find their points."""
    candidate = replace(_small(), recipe=Recipe(distillation=kind))
    evaluator = _evaluator(teacher=_graph_teacher() if captured else _trained())
    prepared = evaluator.prepare(candidate, steps=5, seed=0)
    assert prepared.train_steps == 5
    expected = _evaluator().prepare(_small(), steps=0, seed=0).model.state_dict()
    assert set(prepared.model.state_dict()) == set(expected)


def test_a_teacher_s_nodes_keep_their_names_in_another_process() -> None:
    candidate = replace(_small(), recipe=Recipe(distillation="attention"))
    evaluator = _evaluator(teacher=_graph_teacher())
    copied = cloudpickle.loads(cloudpickle.dumps(evaluator))  # our own bytes
    models = [e.prepare(candidate, steps=3, seed=0).model.state_dict() for e in (evaluator, copied)]
    assert all(torch.equal(models[0][n], t) for n, t in models[1].items())


def test_without_a_teacher_only_the_model_itself_can_teach(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def note(*args: object, steps: int, recipe: Recipe, **more: object) -> FineTuned:
        found.append(recipe.distillation)
        return FineTuned(steps, 0.0)

    monkeypatch.setattr(module, "fine_tune", note)
    for kind in DISTILLATIONS:
        candidate = Candidate(recipe=Recipe(distillation=kind))
        _evaluator(teacher=None).prepare(candidate, steps=1, seed=0)
    assert found == ["self" if kind == "self" else "none" for kind in DISTILLATIONS]


def test_labels_are_left_out_only_where_the_original_teaches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    integers = uniform(list(_space().graph.layers), 8, 8)
    for kind, weight in (("relation", 1.0), ("mutual", 0.7), ("self", 0.7), ("none", 0.7)):
        candidate = replace(integers, recipe=Recipe(distillation=kind))
        assert [w for _, _, w in _trainings(candidate, monkeypatch)] == [weight], kind


SPARSE = {
    "fc": LayerPolicy(sparsity=0.5, pattern="2:4"),
    "layer1.0.conv1": LayerPolicy(sparsity=0.85),
    "layer1.1.conv1": LayerPolicy(sparsity=0.7, pattern="block:4x1"),
    "layer2.1.conv1": LayerPolicy(sparsity=0.7, rank=4),
    "layer2.1.conv2": LayerPolicy(8, 8, sparsity=0.5),
}


def _zero_counts(model: nn.Module) -> dict[str, int]:
    return {
        name.removesuffix(".weight"): int((tensor == 0).sum())
        for name, tensor in model.named_parameters()
        if name.endswith("weight")
    }


@pytest.mark.parametrize("steps", [0, 1, 12])
def test_a_sparse_candidate_has_exactly_its_zeros_trained_or_not(steps: int) -> None:
    evaluator = _evaluator()
    model = evaluator.prepare(Candidate(layers=SPARSE), steps=steps, seed=0).model
    weights = dict(model.named_parameters())
    zeros = _zero_counts(model)
    assert zeros["layer1.0.conv1"] == round(0.85 * weights["layer1.0.conv1.weight"].numel())
    for half in ("layer2.1.conv1.0", "layer2.1.conv1.1"):
        assert zeros[half] == round(0.7 * weights[f"{half}.weight"].numel())
    assert zeros["layer2.1.conv2"] == round(0.5 * weights["layer2.1.conv2.weight"].numel())
    groups = (weights["fc.weight"].reshape(10, -1, 4) == 0).sum(2)
    assert bool((groups == 2).all())
    blocks = (weights["layer1.1.conv1.weight"].reshape(-1, 4, 8 * 9) == 0).sum(1)
    assert set(blocks.flatten().tolist()) == {0, 4}
    assert int((blocks == 4).sum()) == round(0.7 * blocks.numel())
    assert zeros["layer1.2.conv1"] == 0


def test_a_finalised_sparse_candidate_is_restored_with_its_own_zeros(tmp_path: Path) -> None:
    candidate = Candidate(layers=SPARSE)
    evaluator = _evaluator(tmp_path)
    evaluator.evaluate(candidate, fidelity=Fidelity.FINAL, seed=1)
    restored = evaluator.restore(candidate)
    counts = _zero_counts(restored.model)
    assert counts == _zero_counts(evaluator.prepare(candidate, steps=0, seed=0).model)
