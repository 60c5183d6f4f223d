"""Rank the channels of every group: by the criterion whose order costs this model least."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocompress.agent.context import Context
from autocompress.agent.stages.baseline import ORIGINAL
from autocompress.compression.importance.evidence import Batch, Evidence, Sample
from autocompress.compression.importance.ranking import ROUNDS, Ranking, gather, rank_channels
from autocompress.compression.importance.registry import get_criterion
from autocompress.compression.pruning import Pruning
from autocompress.elastic.batch_norm import reestimate_batch_norm
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.ratios import candidate_from_ratios
from autocompress.elastic.realise import realise
from autocompress.errors import AutocompressError, DivergedError
from autocompress.evaluation.accuracy import outputs_of
from autocompress.graph.model_graph import ModelGraph

STAGE = "rank"
FILE = "channels.json"
#: Orders that are tried; where time is short the first ones. All but the first are found in rounds,
#: except the Hessian's, whose rounds cost most: on a trained ResNet-20 rounds lost less than one
#: stroke for every criterion that came near the best.
TRIED = (
    ("l2", 1),
    ("l2", ROUNDS),
    ("taylor", ROUNDS),
    ("activation", ROUNDS),
    ("l1", ROUNDS),
    ("batch_norm_scale", ROUNDS),
    ("apoz", ROUNDS),
    ("hessian", 1),
)
#: What is tried where a model's multiply-accumulates are above :data:`_LIGHT`: an order that looks
#: at data takes minutes there, and what is tried must not hang on how fast a machine is.
TRIED_IF_HEAVY = (("l2", 1), ("taylor", 2))
#: Shares of every group's channels that are removed to compare orders.
PRUNED = (0.25, 0.5)
#: Share of a budget in seconds that the comparison may take.
_SHARE = 0.04
#: Examples that criteria look at, that orders are judged by, and that statistics are taken from.
_SEEN, _JUDGED, _STATISTICS = 512, 512, 512
#: Multiply-accumulates of a model above which fewer examples are used, and the fewest.
_LIGHT, _FEWEST = 1e8, 64


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an order leaves: the score (larger is better) and the loss, means over widths."""

    score: float
    loss: float


def run(context: Context) -> None:
    """Leaves the shared weights in the order that the run's candidates keep channels in.

    It is settled once and stored in the run folder. Weights that are not trained yet, and searches
    without widths, keep the order by squared weights.
    """
    graph = context.space.graph
    ranking = context.folder.read_json(FILE, lambda value: _parsed(value, graph))
    if ranking is None:
        begun = (context.folder.checkpoints / ORIGINAL).is_file()  # and its order is in there
        if begun or context.from_scratch or not _searches_widths(context):
            return
        ranking = _choose(context)
        if ranking is None:
            return
        context.folder.write_json(FILE, asdict(ranking))
    context.elastic = ElasticModel(graph, context.space.techniques, orders=ranking.orders).eval()
    context.teacher = realise(context.elastic, context.space.decode(context.space.original))
    context.evaluator.elastic, context.evaluator.teacher = context.elastic, context.teacher


def _searches_widths(context: Context) -> bool:
    return any(isinstance(technique, Pruning) for technique in context.space.techniques) and any(
        group.rigid is None and group.channels > 1 for group in context.space.graph.groups.values()
    )


def _parsed(value: Any, graph: ModelGraph) -> Ranking:
    """What ``channels.json`` holds.

    Raises:
        ValueError: it is no order of this model's channels.
    """
    orders = {str(name): tuple(int(c) for c in order) for name, order in value["orders"].items()}
    for name, group in graph.groups.items():
        if group.rigid is None and not group.is_order(orders.get(name, ())):
            raise ValueError(f"the order of {name!r} is not one of {group.channels} channels")
    if unknown := set(orders) - {n for n, g in graph.groups.items() if g.rigid is None}:
        raise ValueError(f"there is no group {min(unknown)!r} of free width")
    return Ranking(
        str(value["criterion"]), int(value["rounds"]), orders,
        tuple(str(name) for name in value["unscored"]),
    )  # fmt: skip


def _choose(context: Context) -> Ranking | None:
    """The order that loses least of those there is time for; None when the user asks to stop."""
    began = time.monotonic()
    judge = _Judge(context)
    tried = TRIED if judge.scale >= 1.0 else TRIED_IF_HEAVY
    found: list[tuple[Ranking, _Outcome]] = []
    refused = {f"{n} x{r}": "too many operations" for n, r in TRIED if (n, r) not in tried}
    report = context.progress(STAGE, "orders")
    each = 0.0
    for number, (name, rounds) in enumerate(tried):
        spent = time.monotonic() - began
        if found and not _fits(context, spent, each * judge.relative_cost(name, rounds)):
            refused[f"{name} x{rounds}"] = "no time"
            continue
        try:
            ranking = judge.rank(name, rounds)
            if context.stopping:
                return None
            found.append((ranking, judge.judge(ranking)))
        except AutocompressError as error:
            if not found:
                judge.original()  # where it fails, too, the model or the data are at fault
                _keep_usual(context, error)
                return None
            refused[f"{name} x{rounds}"] = str(error)
        if context.stopping:
            return None
        each = each or time.monotonic() - began - spent
        report(number + 1, len(tried))
    best, outcome = min(found, key=lambda pair: (-pair[1].score, pair[1].loss))
    task, usual = context.request.task, found[0][1]
    way = f"in {best.rounds} rounds" if best.rounds > 1 else "at one stroke"
    context.decide(
        STAGE,
        "rank channels",
        f"Channels are ranked by {get_criterion(best.criterion).words}, {way}: with "
        f"{' and '.join(f'{share:.0%}' for share in PRUNED)} of all channels gone and no training "
        f"the {task.name} metric is {task.score(outcome.score):.3f} on average, "
        f"{task.score(usual.score):.3f} by squared weights at one stroke; {len(found)} orders were "
        f"tried in {time.monotonic() - began:.0f} s.",
        criterion=best.criterion, rounds=best.rounds,
        reference=get_criterion(best.criterion).reference,
        tried=[
            {
                "criterion": ranking.criterion, "rounds": ranking.rounds,
                "metric": task.score(outcome.score), "loss": outcome.loss,
            }
            for ranking, outcome in found
        ],
        not_tried=refused, by_squared_weights=list(best.unscored),
    )  # fmt: skip
    return best


def _keep_usual(context: Context, error: AutocompressError) -> None:
    context.decide(
        STAGE,
        "rank channels",
        "Channels keep their order by squared weights: narrowed and not trained, the model cannot "
        f"be judged ({error}).",
        criterion="l2", rounds=1, reason=str(error),
    )  # fmt: skip


def _fits(context: Context, spent: float, expected: float) -> bool:
    """Whether another order can be tried; without a limit in seconds all are."""
    seconds = context.request.budget.seconds
    return seconds is None or spent + expected <= _SHARE * seconds


class _Judge:
    """Makes orders, and says what each costs on examples that the search chooses by."""

    def __init__(self, context: Context) -> None:
        self.graph = context.space.graph
        self.data, self.task = context.request.data, context.request.task
        original = context.space.decode(context.space.original)
        macs = sum(op.macs for op in self.graph.operations(original))
        self.scale = min(1.0, _LIGHT / max(1, macs))
        self.sample = Sample(
            list(self._training(32, _SEEN, augment=False)), self.task.loss, context.request.seed
        )
        self.judged = self.data.val.subset(self._count(_JUDGED), seed=0)
        self._evidence: Evidence | None = None
        free = [name for name, group in self.graph.groups.items() if group.rigid is None]
        self.candidates = [
            candidate_from_ratios(self.graph, dict.fromkeys(free, share), base=original)[0]
            for share in PRUNED
        ]
        norms = any(isinstance(m, _BatchNorm) for m in self.graph.module.modules())
        self._judging = len(PRUNED) * (_JUDGED + (_STATISTICS if norms else 0))
        self._original = original

    def rank(self, name: str, rounds: int) -> Ranking:
        """An order by the named criterion."""
        criterion = get_criterion(name)
        if criterion.needs_evidence and self._evidence is None:
            self._evidence = gather(self.graph, self.sample)
        return rank_channels(
            self.graph, criterion, sample=self.sample, rounds=rounds, evidence=self._evidence
        )

    def judge(self, ranking: Ranking) -> _Outcome:
        """What narrowing all groups by this order costs before any training."""
        elastic = ElasticModel(self.graph, (), orders=ranking.orders)
        found = []
        for candidate in self.candidates:
            model = realise(elastic, candidate)
            reestimate_batch_norm(model, (x for x, _ in self._training(128, _STATISTICS)))
            found.append(self._outcome(model, "narrowed model"))
        return _Outcome(*(sum(values) / len(found) for values in zip(*found, strict=True)))

    def original(self) -> None:
        """Judge the model as it is.

        Raises:
            AutocompressError: that fails.
        """
        model = realise(ElasticModel(self.graph, ()), self._original)
        self._outcome(model, "model")

    def _outcome(self, model: nn.Module, name: str) -> tuple[float, float]:
        """Score and loss."""
        outputs, targets = outputs_of(model.eval(), self.judged)
        if not bool(torch.isfinite(outputs).all()):
            raise DivergedError(f"the {name}'s outputs hold NaN or infinity")
        score = self.task.score(self.task.evaluate(outputs, targets))
        return score, float(self.task.loss(outputs, targets))

    def relative_cost(self, name: str, rounds: int) -> float:
        """What ranking and judging costs, relative to judging alone, in forward passes."""
        passes = get_criterion(name).passes
        ranking = rounds * _SEEN * (passes + (rounds > 1)) if passes else 0
        return 1.0 + ranking / self._judging

    def _training(
        self, batch_size: int, count: int, *, augment: bool | None = None
    ) -> Iterator[Batch]:
        return self.data.train.batches(
            batch_size, shuffle=True, seed=0, limit=self._count(count), augment=augment
        )

    def _count(self, count: int) -> int:
        return max(_FEWEST, round(count * self.scale))
