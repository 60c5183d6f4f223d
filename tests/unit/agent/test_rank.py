"""Ranking channels in a run: the least harmful order is taken, stored, and found again."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.agent.context import Context
from autocompress.agent.decisions import DecisionLog
from autocompress.agent.run_folder import RunFolder
from autocompress.agent.stages import rank
from autocompress.agent.stages.baseline import ORIGINAL
from autocompress.compression.importance.ranking import ROUNDS
from autocompress.compression.registry import make_techniques
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError, StorageError
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.task import Task
from tests.integration.runs import SmallCNN, trained_cnn

Make = Callable[..., Context]


class _Request:
    """The part of a request that ranking looks at."""

    def __init__(self, data: Data, task: Task, seconds: float | None) -> None:
        self.data, self.task, self.seed = data, task, 0
        self.budget = ac.Budget(seconds=seconds, trials=None if seconds else 3)


@cache
def _data() -> Data:
    return Data.load("digits")


@cache
def _model() -> SmallCNN:
    return trained_cnn()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(
        *,
        techniques: tuple[str, ...] = ("pruning",),
        seconds: float | None = None,
        trained: bool = True,
        model: nn.Module | None = None,
        task: Task | None = None,
    ) -> Context:
        data, task = _data(), task or Task()
        space = ElasticSpace.from_model(
            model or _model(), (data.example()[0],), techniques=make_techniques(techniques),
            capabilities=Capabilities(channel_step=4), trained=trained,
        )  # fmt: skip
        folder = RunFolder(tmp_path)
        request: Any = _Request(data, task, seconds)
        context = Context(request, folder, DecisionLog(folder))
        context.space = space
        context.elastic = ElasticModel(space.graph, space.techniques).eval()
        context.evaluator = CandidateEvaluator(context.elastic, data, task, effort=Effort())
        return context

    return make


def decisions(context: Context) -> list[dict[str, Any]]:
    path = context.folder.path / "decisions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def stored(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((context.folder.path / rank.FILE).read_text())
    return found


def test_the_least_harmful_order_is_taken_and_said(make: Make) -> None:
    context = make()
    rank.run(context)
    (said,) = decisions(context)
    tried = said["evidence"]["tried"]
    assert [(t["criterion"], t["rounds"]) for t in tried] == list(rank.TRIED)
    best = max(tried, key=lambda t: (t["metric"], -t["loss"]))
    assert said["decision"] == "rank channels"
    assert said["sentence"].startswith("Channels are ranked by ")
    assert (said["evidence"]["criterion"], said["evidence"]["rounds"]) == (
        best["criterion"], best["rounds"],
    )  # fmt: skip
    assert (stored(context)["criterion"], stored(context)["rounds"]) == (
        best["criterion"], best["rounds"],
    )  # fmt: skip
    assert context.evaluator.elastic is context.elastic
    assert context.evaluator.teacher is context.teacher


def test_the_function_of_the_model_stays(make: Make) -> None:
    context = make()
    rank.run(context)
    x = _data().example(8)[0]
    with torch.no_grad():
        assert torch.allclose(context.elastic(x), _model()(x), atol=1e-4)
        assert torch.allclose(context.teacher(x), _model()(x), atol=1e-4)


def test_it_comes_out_the_same_again_and_a_resumed_run_takes_what_is_stored(make: Make) -> None:
    first = make()
    rank.run(first)
    whole = stored(first)
    (first.folder.path / rank.FILE).unlink()
    again = make()
    rank.run(again)
    assert stored(again) == whole
    whole["orders"] = {n: order[::-1] for n, order in whole["orders"].items()}
    (first.folder.path / rank.FILE).write_text(json.dumps(whole))
    resumed = make()
    before = len(decisions(resumed))
    rank.run(resumed)
    assert len(decisions(resumed)) == before
    weights = dict(resumed.elastic.weights.named_parameters())
    others = dict(again.elastic.weights.named_parameters())
    assert torch.equal(weights["stem.0.weight"], others["stem.0.weight"].flip(0))


def test_orders_without_time_are_named(make: Make) -> None:
    context = make(seconds=1e-3)
    rank.run(context)
    (said,) = decisions(context)
    assert [t["criterion"] for t in said["evidence"]["tried"]] == ["l2"]
    assert set(said["evidence"]["not_tried"].values()) == {"no time"}
    assert len(said["evidence"]["not_tried"]) == len(rank.TRIED) - 1


def test_criteria_that_do_not_apply_are_named(make: Make) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    context = make(model=plain)
    rank.run(context)
    (said,) = decisions(context)
    reason = said["evidence"]["not_tried"][f"batch_norm_scale x{ROUNDS}"]
    assert "has nothing to look at in this model" in reason


@pytest.mark.parametrize(
    "options", [{"trained": False}, {"techniques": ("quantization",)}], ids=["untrained", "widths"]
)
def test_nothing_is_chosen_where_there_is_nothing_to_choose_by(
    make: Make, options: dict[str, Any]
) -> None:
    context = make(**options)
    before = context.elastic
    rank.run(context)
    assert context.elastic is before
    assert not (context.folder.path / rank.FILE).exists()
    assert decisions(context) == []


def test_a_run_that_was_begun_without_keeps_its_order(make: Make) -> None:
    context = make()
    context.folder.checkpoints.mkdir()
    (context.folder.checkpoints / ORIGINAL).write_bytes(b"")
    before = context.elastic
    rank.run(context)
    assert context.elastic is before


def test_an_interrupted_choice_is_not_stored(make: Make) -> None:
    context = make()
    context.interrupts.asked = True
    before = context.elastic
    rank.run(context)
    assert context.elastic is before
    assert not (context.folder.path / rank.FILE).exists()


@pytest.mark.parametrize("wrong", ["{}", '{"orders": {}}', "[]", '{"orders": {"stem.0": [0, 0]}}'])
def test_a_damaged_file_is_refused(make: Make, wrong: str) -> None:
    context = make()
    (context.folder.path / rank.FILE).write_text(wrong)
    with pytest.raises(StorageError, match=r"channels\.json is damaged"):
        rank.run(context)


def test_a_metric_that_is_better_when_smaller(make: Make) -> None:
    def wrong(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float((outputs.argmax(1) != targets).double().mean())

    context = make(task=Task(metric=wrong, higher_is_better=False, name="error"))
    rank.run(context)
    (said,) = decisions(context)
    tried = said["evidence"]["tried"]
    best = min(tried, key=lambda t: (t["metric"], t["loss"]))
    assert said["evidence"]["criterion"] == best["criterion"]
    assert all(0 <= t["metric"] <= 1 for t in tried)


def test_a_metric_that_narrowed_models_fail_keeps_the_usual_order(make: Make) -> None:
    """Narrowed and untrained, a model may give what a metric has no number for."""

    def picky(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        right = float((outputs.argmax(1) == targets).double().mean())
        return right if right > 0.9 else float("nan")

    context = make(task=Task(metric=picky))
    before = context.elastic
    rank.run(context)
    assert context.elastic is before
    assert not (context.folder.path / rank.FILE).exists()
    (said,) = decisions(context)
    assert "keep their order by squared weights" in said["sentence"]
    assert said["evidence"]["reason"]


def test_a_model_of_many_operations_is_ranked_by_few_orders(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the budget, and whatever the machine."""
    monkeypatch.setattr(rank, "_LIGHT", 1e3)
    context = make()
    rank.run(context)
    (said,) = decisions(context)
    found = [(t["criterion"], t["rounds"]) for t in said["evidence"]["tried"]]
    assert found == list(rank.TRIED_IF_HEAVY)
    assert set(said["evidence"]["not_tried"].values()) == {"too many operations"}


def test_statistics_cost_nothing_where_there_are_no_norms(make: Make) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    costs = [rank._Judge(make(model=m)).relative_cost("taylor", 1) - 1 for m in (plain, _model())]
    assert costs[0] == 2 * costs[1]


def test_an_error_in_the_user_s_task_is_not_hidden(make: Make) -> None:
    def broken(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        raise ValueError("no such metric")

    with pytest.raises(RequestError, match="no such metric"):
        rank.run(make(task=Task(metric=broken)))
