"""The analysis on a small network trained on real digits."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import fx, nn

from autocompress.compression.registry import make_techniques
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import RequestError
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.evaluation.sensitivity import analysis
from autocompress.evaluation.sensitivity.analysis import Limits, analyse
from autocompress.evaluation.sensitivity.estimates import ALL
from autocompress.evaluation.sensitivity.frontier import Frontier
from autocompress.evaluation.sensitivity.measuring import Original, Outcome, TrueLoss
from autocompress.evaluation.sensitivity.pairs import PairRequest
from autocompress.evaluation.sensitivity.result import Sensitivity
from autocompress.evaluation.sensitivity.scores import SCORES
from autocompress.evaluation.sensitivity.settings import (
    Setting,
    in_order_of_interest,
    single_settings,
)
from autocompress.evaluation.task import Task
from tests.unit.evaluation.test_fine_tune import ALONE
from tests.unit.networks import EVERYTHING, MobileNet, ResNet

EXAMPLES = 60
WHOLE = Limits()


@cache
def data() -> Data:
    whole = Data.load("digits")
    few = whole.calibration.subset(64)
    return Data(whole.train, whole.val, whole.test, calibration=few)


@cache
def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MobileNet(1) if name == "mobilenet" else ResNet(channels=1, widths=(8, 16))
    fine_tune(model, data().train, Task(), recipe=ALONE, steps=60, seed=0)
    return model.eval()


def made(model: nn.Module, techniques: list[str] | None = None) -> CandidateEvaluator:
    space = ElasticSpace.from_model(
        model, (data().example()[0],), techniques=make_techniques(techniques),
        capabilities=EVERYTHING,
    )  # fmt: skip
    elastic = ElasticModel(space.graph, space.techniques).eval()
    elastic.space = space  # type: ignore[assignment]
    return CandidateEvaluator(
        elastic, data(), Task(), effort=Effort(val_limit=EXAMPLES), statistics=128,
        original=space.decode(space.original),
    )  # fmt: skip


@cache
def evaluator(name: str = "resnet") -> CandidateEvaluator:
    return made(trained(name))


def space_of(found: CandidateEvaluator) -> ElasticSpace:
    space: object = found.elastic.space
    assert isinstance(space, ElasticSpace)
    return space


def run(found: CandidateEvaluator, limits: Limits, *, seed: int = 0) -> Sensitivity:
    return analyse(found, space_of(found), found.trial_split(), limits=limits, seed=seed)


@cache
def some() -> Sensitivity:
    """Forty measured settings, the others estimated."""
    return run(evaluator(), Limits(settings=40))


def by_name(found: CandidateEvaluator) -> dict[tuple[str, int], Setting]:
    return {(s.gene, s.option): s for s in single_settings(space_of(found))}


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_measured_rows_are_what_the_whole_candidate_scores(name: str) -> None:
    """Bit for bit: realised, re-estimated, folded, quantised and run from the first layer on."""
    found = evaluator(name)
    result = some() if name == "resnet" else run(found, Limits(settings=40))
    settings = by_name(found)
    assert len(result.measured) == 40
    assert set(result.measured["technique"]) == {
        "architecture", "pruning", "low_rank", "sparsity", "quantization", "clustering",
    }  # fmt: skip
    x, y = found.trial_split().first(EXAMPLES)
    for row in result.measured.to_dict("records")[::2]:
        candidate = settings[row["gene"], row["option"]].candidate
        with torch.no_grad():
            outputs = found.prepare(candidate, steps=0, seed=0).model(x)
        direct = float(found.task.loss(outputs, y)), found.task.evaluate(outputs, y)
        assert (row["loss"], row["metric"]) == direct, (row["layer"], row["setting"])


@pytest.mark.parametrize("limit_bytes", [1, 1 << 19, 1 << 40])
def test_memory_changes_what_is_computed_again_and_no_result(limit_bytes: int) -> None:
    found = evaluator()
    truth = TrueLoss(found, found.trial_split(), limit_bytes=limit_bytes)
    plenty = TrueLoss(found, found.trial_split(), limit_bytes=1 << 40)
    settings = single_settings(space_of(found))
    for setting in [*settings[::23], settings[0]]:  # the last one goes back
        assert truth.measure(setting.candidate) == plenty.measure(setting.candidate)


def _kept_bytes(truth: TrueLoss) -> int:
    """Of all inputs and results that are held, each tensor counted once."""
    known = vars(truth)
    originals = [known[name] for name in ("kept", "reestimated") if name in known]
    places = [vars(original) for original in originals] + [known]
    frontiers = [p[n] for p in places for n in ("examples", "calibration", "_training") if n in p]
    frontiers = [frontier for frontier in frontiers if isinstance(frontier, Frontier)]
    assert len(frontiers) == 5
    held = [v for f in frontiers for env in f._envs for v in env.values()]
    held += [batch for f in frontiers for batch in f._batches]
    return sum({v.data_ptr(): v.numel() * v.element_size() for v in held}.values())


@pytest.mark.parametrize("limit_bytes", [1 << 18, 1 << 20])
def test_all_that_is_kept_is_within_the_limit(limit_bytes: int) -> None:
    found = evaluator()
    truth = TrueLoss(found, found.trial_split(), limit_bytes=limit_bytes)
    settings = single_settings(space_of(found))
    most = 0
    for setting in [s for s in settings if s.kind == "precision"][::5]:
        truth.measure(setting.candidate)
    for setting in [s for s in settings if s.kind == "rank"]:
        (name,) = setting.layers
        policy = replace(setting.candidate.policy(name), weight_bits=8, activation_bits=8)
        truth.measure(replace(setting.candidate, layers={name: policy}))
        most = max(most, _kept_bytes(truth))
    assert 0 < most <= limit_bytes


def test_changes_are_against_the_original_in_the_same_state() -> None:
    result = some()
    kept, again = result.reference["kept"], result.reference["reestimated"]
    assert kept != again
    for row in result.measured.to_dict("records"):
        reference = kept if row["technique"] in {"quantization", "clustering"} else again
        assert row["loss_change"] == row["loss"] - reference["loss"]
        assert row["metric_drop"] == pytest.approx(reference["metric"] - row["metric"])


def test_what_is_not_measured_is_estimated_and_says_so() -> None:
    table = some().table
    estimated = table[~table["measured"]]
    assert len(estimated) > 40
    assert (table.loc[table["measured"], "estimated_from"] == "").all()
    assert estimated["estimated_from"].str.contains("calibrated on").all()
    assert np.isfinite(estimated[["loss_change", "metric_drop"]]).all(axis=None)
    assert estimated[["loss", "metric"]].isna().all(axis=None)


def test_with_hardly_any_budget_the_scores_stand_alone() -> None:
    result = run(evaluator(), Limits(settings=2))
    estimated = result.table[~result.table["measured"]]
    assert len(result.measured) == 2
    assert set(estimated["estimated_from"]) == {"output_fisher, not calibrated"}
    assert (estimated["loss_change"] == estimated["output_fisher"]).all()
    assert estimated["metric_drop"].isna().all()


def test_a_deadline_that_has_passed() -> None:
    result = run(evaluator(), Limits(deadline=time.monotonic() - 1))
    assert not result.table["measured"].any()
    assert any("want of time" in note for note in result.notes)
    assert result.score_examples == 4
    assert "0 measured" in result.summary()


def test_equal_seeds_equal_tables() -> None:
    pd.testing.assert_frame_equal(run(evaluator(), Limits(settings=40)).table, some().table)


def test_other_seeds_look_at_the_hessian_in_other_directions() -> None:
    other = run(evaluator(), Limits(settings=1), seed=1).table
    assert (other["hessian_trace"] != some().table["hessian_trace"]).any()
    same = [score for score in SCORES if score != "hessian_trace"]
    pd.testing.assert_frame_equal(other[same], some().table[same])


def test_estimates_rank_what_they_stand_for() -> None:
    """Estimates from forty rows against all rows measured."""
    truth = run(evaluator(), WHOLE)
    assert truth.table["measured"].all()
    left = ~some().table["measured"]
    found = some().table.loc[left, "loss_change"]
    ranks: float = found.corr(truth.table.loc[left, "loss_change"], method="spearman")
    assert ranks > 0.6
    over_all = truth.agreement[truth.agreement["technique"] == ALL]
    taus = dict(zip(over_all["score"], over_all["kendall"].to_numpy(float), strict=True))
    assert set(taus) == set(SCORES)
    assert taus["output_fisher"] > 0.5
    assert (over_all["rows"] > 100).all()


class Silenced(nn.Module):
    """The second of two convolutions beside each other reaches the output times almost nothing."""

    def __init__(self, *, swapped: bool = False) -> None:
        super().__init__()
        self.swapped = swapped
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.loud = nn.Conv2d(8, 8, 3, padding=1)
        self.quiet = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        if self.swapped:
            quiet, loud = 1e-6 * self.quiet(x), self.loud(x)
        else:
            loud, quiet = self.loud(x), 1e-6 * self.quiet(x)
        pooled = nn.functional.max_pool2d(torch.relu(loud + quiet), 2)
        return self.fc(pooled.flatten(1))  # type: ignore[no-any-return]


@cache
def silenced() -> nn.Module:
    torch.manual_seed(0)
    model = Silenced()
    fine_tune(model, data().train, Task(), recipe=ALONE, steps=150, seed=0)
    return model.eval()


def test_a_layer_that_hardly_reaches_the_output_is_insensitive() -> None:
    techniques = ["sparsity", "low_rank"]
    table = run(made(silenced(), techniques), WHOLE).table
    quiet = table[table["layer"] == "quiet"]
    assert len(quiet) >= 4
    assert quiet["loss_change"].abs().max() < 1e-4
    assert (quiet[["output_fisher", "taylor", "fisher_diagonal"]] < 1e-6).all(axis=None)
    loud = table[table["layer"] == "loud"]
    assert loud["loss_change"].max() > 0.01
    assert (quiet["output_sqnr_db"] < 60).all()  # what happens at the layer alone cannot tell


def test_the_order_of_layers_in_the_code_does_not_matter() -> None:
    other = Silenced(swapped=True)
    other.load_state_dict(silenced().state_dict())
    names = ["quantization", "low_rank", "sparsity"]  # groups are named after their first layer
    one = run(made(silenced(), names), WHOLE).table.set_index(["gene", "option"])
    two = run(made(other.eval(), names), WHOLE).table.set_index(["gene", "option"])
    assert len(one) > 30
    two = two.reindex(one.index)
    assert np.allclose(one["loss_change"], two["loss_change"], atol=1e-5)
    # signs are drawn layer by layer, so the Hessian is looked at in other directions
    same = [score for score in SCORES if score != "hessian_trace"]
    assert np.allclose(one[same], two[same], rtol=1e-3, atol=1e-7)


class TwoPassengers(nn.Module):
    """A layer that is called twice, an embedding-like table, a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.table = nn.Parameter(torch.randn(8, 8))
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.stem(x))))))
        x = torch.relu(self.grouped(x)).mean((2, 3))
        return self.fc(x @ self.table)  # type: ignore[no-any-return]


def test_every_layer_that_cannot_take_a_setting_is_listed_with_its_reason() -> None:
    torch.manual_seed(0)
    result = run(made(TwoPassengers().eval()), Limits(settings=1))
    rows = result.skipped.to_dict("records")
    skipped = {(r["layer"], r["technique"]): r["reason"] for r in rows if r["setting"] == "any"}
    assert "called 2 times" in skipped["twice", "quantization"]
    assert "called 2 times" in skipped["twice", "low_rank"]
    assert "called 2 times" in skipped["twice", "clustering"]
    assert skipped["grouped", "low_rank"].startswith("grouped convolution")
    assert skipped["fc", "pruning"] == "it is the model's output"
    assert "free parameters" in next(r for (_, t), r in skipped.items() if t == "any")
    forms = result.skipped[result.skipped["layer"] == "(every layer)"]
    assert {"w3a8", "w8a32"} <= set(forms["setting"])
    space = space_of(made(TwoPassengers().eval()))
    offered = {(t, c.name.partition(":")[2]): c.options for c in space.choices
               if (t := getattr(space.technique_of(c), "name", ""))}  # fmt: skip
    for technique in ("low_rank", "quantization", "clustering", "sparsity"):
        for layer in space.graph.layers:  # a setting or a reason, never neither
            assert ((technique, layer) in offered) != ((layer, technique) in skipped)
    for row in rows:  # what a form is refused for is offered in other forms at the most
        options = offered.get((row["technique"], row["layer"]), ())
        assert row["setting"] not in {str(option).partition(":")[0] for option in options}
    assert ("stem", "cp") in {(r["layer"], r["setting"]) for r in rows}  # which has spatial:2


def test_rounds_hold_every_setting_once() -> None:
    settings = single_settings(space_of(evaluator()))
    rounds = in_order_of_interest(settings)
    tried = [s for group in rounds for s in group]
    assert sorted(map(id, tried)) == sorted(map(id, settings))
    assert {s.kind for s in rounds[0]} == {s.kind for s in settings}
    assert {s.label for s in rounds[1]} == {"w4a8"}


def test_a_setting_that_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.errors import DivergedError

    honest = TrueLoss.measure

    def broken(self: TrueLoss, candidate: object) -> object:
        policies = getattr(candidate, "layers", {})
        if any(p.sparsity > 0 for p in policies.values()):
            raise DivergedError("the model's outputs hold NaN or infinity")
        return honest(self, candidate)  # type: ignore[arg-type]

    monkeypatch.setattr(TrueLoss, "measure", broken)
    result = run(evaluator(), Limits(settings=40))
    failed = result.table[result.table["error"] != ""]
    assert set(failed["technique"]) == {"sparsity"}
    assert not failed["measured"].any()
    assert math.isnan(failed["loss_change"].iloc[0])
    assert "failed" in result.summary()


def test_a_reference_that_fails_is_the_settings_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.errors import DivergedError

    honest = TrueLoss.score

    def broken(self: TrueLoss, model: fx.GraphModule, base: Original) -> Outcome:
        if model is base.folded and base is not self.kept:
            raise DivergedError("the model's outputs hold NaN or infinity")
        return honest(self, model, base)

    monkeypatch.setattr(TrueLoss, "score", broken)
    result = run(evaluator(), Limits(settings=12))
    structural = result.table["technique"].isin(["pruning", "sparsity", "low_rank", "architecture"])
    failed = result.table["error"] != ""
    assert failed.any()
    assert structural[failed].all()
    assert (~structural[result.table["measured"]]).all()
    assert set(result.reference) == {"kept"}


def test_an_original_without_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.errors import DataError

    def broken(*_: object) -> Outcome:
        raise DataError("the metric is not a number")

    monkeypatch.setattr(TrueLoss, "score", broken)
    result = run(evaluator(), Limits(settings=3))
    assert not result.table["measured"].any()
    assert int((result.table["error"] == "the metric is not a number").sum()) == 3
    assert math.isnan(result.reference["kept"]["loss"])
    assert any("the original itself" in note for note in result.notes)
    assert "3 failed" in result.summary()


def test_heat_map() -> None:
    from autocompress.errors import RequestError

    figure = some().plot()
    assert len(figure.data[0].y) == some().table["layer"].nunique()
    assert any("~" in str(text) for row in figure.data[0].text for text in row)
    with pytest.raises(RequestError, match="no column 'gain'"):
        some().plot("gain")


def paired(request: PairRequest, limits: Limits = WHOLE, **options: Any) -> Sensitivity:
    found = evaluator()
    return analyse(
        found, space_of(found), found.trial_split(), limits=limits, pairs=request, **options
    )


@cache
def pairs_of_all() -> Sensitivity:
    return paired(PairRequest(most=8), Limits(settings=30))


def test_pairs_are_what_the_whole_candidate_scores() -> None:
    """Both settings at once, bit for bit, less what each loses alone."""
    result, found = pairs_of_all(), evaluator()
    table = result.interactions
    assert len(table) == 8
    assert table["measured"].all()
    assert set(table["picked"]) == {"harmful", "promising"}
    settings = {(s.target, s.label, s.kind): s for s in single_settings(space_of(found))}
    by_label = {(target, label): s for (target, label, _), s in settings.items()}
    singles = result.measured.set_index(["layer", "setting"])["loss_change"]
    x, y = found.trial_split().first(EXAMPLES)
    for row in table.to_dict("records"):
        names = [(row[f"{w}_layer"], row[f"{w}_setting"]) for w in ("first", "second")]
        first, second = (by_label[name] for name in names)
        genome = np.maximum(first.genome, second.genome)
        candidate = space_of(found).decode(genome)
        with torch.no_grad():
            outputs = found.prepare(candidate, steps=0, seed=0).model(x)
        state = "reestimated" if found.changes_structure(candidate) else "kept"
        loss = float(found.task.loss(outputs, y)) - result.reference[state]["loss"]
        assert row["joint_loss_change"] == loss
        assert [row["first_loss_change"], row["second_loss_change"]] == [
            float(singles[name]) for name in names
        ]
        alone = row["first_loss_change"] + row["second_loss_change"]
        assert row["interaction"] == pytest.approx(loss - alone)


def test_the_most_harmful_pair_is_of_the_most_harmful_settings() -> None:
    table = pairs_of_all().interactions
    harmful = table[table["picked"] == "harmful"]
    sums = harmful["first_loss_change"] + harmful["second_loss_change"]
    assert sums.is_monotonic_decreasing
    measured = pairs_of_all().measured.groupby("gene")["loss_change"].max().nlargest(2).sum()
    assert sums.iloc[0] == pytest.approx(measured)


def test_pairs_of_chosen_layers_are_all_of_theirs() -> None:
    names = ("layer1.0.conv1", "layer2.0.conv1")
    space = space_of(evaluator())
    settings = [s for s in single_settings(space) if s.target in names]
    result = paired(PairRequest(layers=names), Limits(settings=10))
    table = result.interactions
    wanted = {
        frozenset([(a.target, a.label), (b.target, b.label)])
        for a, b in combinations(settings, 2)
        if a.gene != b.gene
    }
    found = {
        frozenset(
            [(r["first_layer"], r["first_setting"]), (r["second_layer"], r["second_setting"])]
        )
        for r in table.to_dict("records")
    }
    assert 10 < len(found) == len(table)
    assert found <= wanted
    assert set(result.measured["layer"]) <= set(names)  # theirs are measured first
    assert int(table["measured"].sum()) == 10
    assert "these are partial results" in result.summary()


class EverySecond:
    """A clock on which each look takes a second: time runs out alike on every machine."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


def test_pairs_stay_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = EverySecond()
    monkeypatch.setattr(analysis, "time", clock)
    deadline = clock.now + 600.0
    result = paired(PairRequest(most=10**4), Limits(deadline=deadline))
    assert clock.now < deadline + 10.0
    assert 0 < int(result.interactions["measured"].sum()) < len(result.interactions)
    assert "not for want of time: these are partial results" in result.summary()
    assert result.interactions[~result.interactions["measured"]]["interaction"].isna().all()


def test_no_time_for_pairs_says_so() -> None:
    table = paired(PairRequest(most=3), Limits(settings=0)).interactions
    assert table.empty


def test_the_matrix_of_pairs() -> None:
    result = pairs_of_all()
    (trace,) = result.plot_interactions().data
    values = np.array(trace.z, dtype=float)
    assert values.shape[0] == values.shape[1] == len(trace.x)
    assert np.array_equal(values, values.T, equal_nan=True)
    assert np.isfinite(values).sum() == 2 * len(result.interactions)
    with pytest.raises(RequestError, match="no pairs were measured"):
        some().plot_interactions()
    with pytest.raises(RequestError, match="there is no column 'loss'"):
        result.plot_interactions("loss")


@pytest.mark.parametrize("value", [0, -1, True, "conv1", [], [""], 1.5])
def test_pairs_that_are_no_request(value: object) -> None:
    with pytest.raises(RequestError, match="give how many pairs"):
        PairRequest.parse(value)


def test_pairs_of_a_layer_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"'layer1.0.conv7', .* such as 'layer1.0.conv"):
        paired(PairRequest(layers=("layer1.0.conv7",)))
