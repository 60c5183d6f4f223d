"""Real searches from data to verified models, looked at from outside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

import autocompress as ac
from autocompress.core.budget import Fidelity
from autocompress.core.candidate import Recipe
from autocompress.core.pareto import non_dominated
from autocompress.errors import InfeasibleError, RequestError
from autocompress.search.store import read_trials
from tests.integration.conftest import ink_data, ink_task
from tests.integration.runs import BUDGET, SEED, SmallCNN, content, front

COLUMNS = [
    "id", "kind", "name", "accuracy", "accuracy_low", "accuracy_high", "val_accuracy",
    "accuracy_drop", "latency_ms", "latency_low_ms", "latency_high_ms", "latency_estimate_ms",
    "latency_estimate_low_ms", "latency_estimate_high_ms", "size_bytes", "size_estimate_bytes",
    "packed_bytes", "macs", "parameters", "peak_memory_bytes", "speedup", "size_ratio",
    "energy_mj", "agreement", "not_proven", "changes",
]  # fmt: skip
MEASURED = ["latency_ms", "latency_low_ms", "latency_high_ms", "speedup"]
SURPASSED = "at least as good in every objective"
RUNS = ["fixed_run", "local_run", "space_run", "ink_run"]


@pytest.fixture(params=RUNS)
def result(request: pytest.FixtureRequest) -> ac.SearchResult:
    found: ac.SearchResult = request.getfixturevalue(request.param)
    return found


def test_is_complete(result: ac.SearchResult) -> None:
    assert result.view.status == "complete"
    report = (result.run_dir / "report.html").read_text()
    assert all(solution.id in report for solution in result.solutions)
    assert not (result.run_dir / "staging").exists()


def test_every_stage_gives_its_reasons(result: ac.SearchResult) -> None:
    lines = (result.run_dir / "decisions.jsonl").read_text().splitlines()
    decisions = [json.loads(line) for line in lines]
    assert all(d.keys() == {"time", "stage", "decision", "sentence", "evidence"} for d in decisions)
    stages = list(dict.fromkeys(d["stage"] for d in decisions))
    known = ["sensitise"] if result.view.model != "tiny_cnn" else []
    ranked = ["rank"] if known else []
    order = [
        "inspect", "plan", *ranked, "baseline", "price", *known, "elasticise", "trust", "search",
        "finalise", "verify",
    ]  # fmt: skip
    assert stages == order


def test_table(result: ac.SearchResult) -> None:
    table = pd.read_csv(result.run_dir / "pareto.csv")
    assert list(table.columns) == COLUMNS
    assert list(table["id"][:2]) == ["baseline-fp32", "baseline-int8"]
    assert list(table["kind"]) == ["baseline"] * 2 + ["solution"] * (len(table) - 2)
    assert set(table["id"][2:]) == set(front(result.run_dir))
    estimates = ["latency_estimate_ms", "latency_estimate_low_ms", "latency_estimate_high_ms"]
    always = ["accuracy", "val_accuracy", "accuracy_drop", "size_bytes", "size_estimate_bytes"]
    always += ["packed_bytes", "macs", "parameters", "peak_memory_bytes", "size_ratio", *estimates]
    assert table[always].notna().all(axis=None)
    assert (table["latency_estimate_low_ms"] <= table["latency_estimate_ms"]).all()
    assert (table["latency_estimate_ms"] <= table["latency_estimate_high_ms"]).all()


def test_baselines(result: ac.SearchResult) -> None:
    fp32, int8 = result.baseline.to_dict("records")
    assert (fp32["accuracy_drop"], fp32["size_ratio"]) == (0.0, 1.0)
    assert int8["size_bytes"] < fp32["size_bytes"]
    assert int8["macs"] == fp32["macs"]
    for row in (fp32, int8):
        manifest = json.loads((result.run_dir / "models" / row["id"] / "manifest.json").read_text())
        assert all(check["ok"] for check in manifest["checks"])
        for name, value in manifest["metrics"].items():
            if isinstance(value, float) and name in COLUMNS:
                assert row[name] == pytest.approx(value), name


def test_models_are_what_they_claim(result: ac.SearchResult) -> None:
    """Everything is computed again here, with nothing but the runtime."""
    data = ink_data() if result.view.section("request")["task"] == "ink" else ac.Data.load("digits")
    batches = list(data.test.batches(32))
    targets = torch.cat([y for _, y in batches])
    assert result.solutions
    for solution in result.solutions:
        raw = solution.path.read_bytes()
        assert hashlib.sha256(raw).hexdigest() == solution.manifest["sha256"]
        assert len(raw) == solution.manifest["size_bytes"] == solution.metrics["size_bytes"]
        session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        outputs = np.concatenate([session.run(None, {name: x.numpy()})[0] for x, _ in batches])
        if result.view.section("request")["task"] == "ink":
            score = ink_task().evaluate(torch.from_numpy(outputs), targets)
        else:
            score = float(np.mean(outputs.argmax(1) == targets.numpy()))
        assert solution.metrics["accuracy"] == pytest.approx(score, rel=1e-6)
        assert all(check["ok"] for check in solution.manifest["checks"])


def test_front_holds_every_verified_model_that_is_not_surpassed(result: ac.SearchResult) -> None:
    rejected = result.view.rejected.values()
    assert all(any(not c["ok"] for c in m["checks"]) for m in rejected)
    surpassed = [m["metrics"] for m in rejected if SURPASSED in str(m["checks"])]
    rows = [s.metrics for s in result.solutions]
    sign = 1.0 if result.view.section("request")["higher_is_better"] else -1.0
    losses = np.array(
        [
            (
                -sign * row["val_accuracy"],
                -sign * row["accuracy"],
                row.get("latency_ms") or row["latency_estimate_ms"],
                row["size_bytes"],
            )
            for row in [*rows, *surpassed]
        ]
    )
    keep = non_dominated(losses)
    assert keep[: len(rows)].all()
    assert not keep[len(rows) :].any()


@pytest.mark.parametrize("name", ["fixed_run", "space_run", "ink_run"])
def test_nothing_is_measured_on_a_device_that_is_not_at_hand(
    name: str, request: pytest.FixtureRequest
) -> None:
    result: ac.SearchResult = request.getfixturevalue(name)
    table = pd.read_csv(result.run_dir / "pareto.csv")
    assert table[MEASURED].isna().all(axis=None)
    assert table["latency_estimate_ms"].gt(0).all()
    assert result.trials["latency_ms"].gt(0).all()  # of a trial it is always the table's price
    assert result.view.device == "fixed_cpu"
    assert result.view.profile["id"] == "fixed_cpu"


def test_everything_is_measured_on_this_machine(local_run: ac.SearchResult) -> None:
    table = pd.read_csv(local_run.run_dir / "pareto.csv")
    assert table[MEASURED].gt(0).all(axis=None)
    assert (table["latency_low_ms"] <= table["latency_ms"]).all()
    assert (table["latency_ms"] <= table["latency_high_ms"]).all()
    latency = table["latency_ms"].to_numpy(dtype=float)
    assert np.allclose(table["speedup"].to_numpy(dtype=float), latency[0] / latency)
    assert local_run.solutions[0].manifest["protocol"]["passes"] >= 1
    assert local_run.solutions[0].manifest["environment"]


def test_trials(result: ac.SearchResult) -> None:
    trials = result.trials
    searched = trials[trials["fidelity"] != "final"]
    assert len(searched) == BUDGET.trials
    assert list(trials["number"]) == list(range(len(trials)))
    assert (trials["state"] == "complete").all()
    assert searched["candidate"].is_unique
    assert {s.id for s in result.solutions} <= set(
        trials.loc[trials["fidelity"] == "final", "candidate"]
    )


def test_best(fixed_run: ac.SearchResult) -> None:
    table = fixed_run.pareto
    assert fixed_run.best().metrics["val_accuracy"] == table["val_accuracy"].max()
    least = int(table["size_bytes"].min())
    assert fixed_run.best(max_size_bytes=least).metrics["size_bytes"] == least
    fastest = float(table["latency_estimate_ms"].min())
    best = fixed_run.best(max_latency_ms=fastest)  # the estimate counts where none was measured
    assert best.metrics["latency_estimate_ms"] == pytest.approx(fastest)
    with pytest.raises(InfeasibleError, match=rf"size_bytes <= 10; the least is {least}"):
        fixed_run.best(max_size_bytes=10)


def test_solution(fixed_run: ac.SearchResult, tmp_path: Path) -> None:
    solution = fixed_run.best()
    layers = solution.explain()
    assert set(layers["name"]) == {"stem.0", "body.0", "body.3", "head"}
    assert layers["parameters"].sum() == solution.metrics["parameters"]
    assert layers["macs"].sum() == solution.metrics["macs"]
    saved = solution.save(tmp_path / "deep" / "small.onnx")
    assert ac.verify(saved).ok
    x = ac.Data.load("digits").example()[0].numpy()
    session = solution.session()
    (logits,) = session.run({session.inputs[0].name: x})
    assert logits.shape == (len(x), 10)
    assert solution.candidate.id == solution.id


def test_plot_and_report(fixed_run: ac.SearchResult, tmp_path: Path) -> None:
    figure = fixed_run.plot()
    shown = sum(len(trace.x) for trace in figure.data if trace.x is not None)
    assert shown >= len(fixed_run.pareto) + len(fixed_run.baseline)
    assert fixed_run.report(tmp_path / "again.html").stat().st_size > 100_000


def test_bound_on_a_metric_that_is_better_when_smaller(ink_run: ac.SearchResult) -> None:
    bound = ink_run.view.section("request")["constraints"]["accuracy"]
    assert ink_run.pareto["val_accuracy"].between(0, bound).all()
    assert ink_run.trials["accuracy"].gt(0).all()


def test_same_seed_same_trials(
    cnn: SmallCNN, fixed_profile: Path, fixed_run: ac.SearchResult, tmp_path: Path
) -> None:
    again = ac.search(
        cnn, "digits", device=fixed_profile, budget=BUDGET, seed=SEED, progress="none",
        run_dir=tmp_path / "again",
    )  # fmt: skip
    assert content(again.run_dir) == content(fixed_run.run_dir)
    assert front(again.run_dir) == front(fixed_run.run_dir)
    pd.testing.assert_frame_equal(again.pareto, fixed_run.pareto)
    pd.testing.assert_frame_equal(again.baseline, fixed_run.baseline)


def test_a_complete_run_is_not_run_again(cnn: SmallCNN, fixed_run: ac.SearchResult) -> None:
    files = {p: p.stat().st_mtime_ns for p in fixed_run.run_dir.rglob("*") if p.is_file()}
    again = ac.resume(fixed_run.run_dir, cnn, progress="none")
    pd.testing.assert_frame_equal(again.pareto, fixed_run.pareto)
    kept = {p: p.stat().st_mtime_ns for p in fixed_run.run_dir.rglob("*") if p.is_file()}
    assert {p: t for p, t in files.items() if p.suffix in {".onnx", ".csv", ".html"}} == {
        p: t for p, t in kept.items() if p.suffix in {".onnx", ".csv", ".html"}
    }


def test_models_for_another_runtime_are_checked_and_timed_in_it(
    openvino_run: ac.SearchResult, cnn: SmallCNN
) -> None:
    folder = openvino_run.run_dir
    assert len(openvino_run.pareto) > 0
    for model in sorted((folder / "models").iterdir()):
        manifest = json.loads((model / "manifest.json").read_text())
        assert manifest["runtime"] == "openvino"
        assert manifest["environment"]["runtime"].startswith("openvino/")
        assert ac.verify(model / "model.onnx").ok
    assert openvino_run.best().session().run([np.zeros((1, 1, 8, 8), np.float32)])
    view = openvino_run.view
    assert view.device == "local:openvino"
    assert view.place.endswith("(openvino)")
    with pytest.raises(RequestError, match="holds a run for device 'local:openvino'"):
        ac.search(
            cnn, "digits", run_dir=folder, seed=SEED, progress="none",
            budget=ac.Budget(trials=4, train_steps=40), techniques=["pruning", "quantization"],
        )  # fmt: skip


def test_recipes_are_searched_where_distillation_is_named(
    recipe_run: ac.SearchResult, fixed_run: ac.SearchResult
) -> None:
    assert recipe_run.view.status == "complete"
    trials = read_trials(recipe_run.run_dir / "study.db")
    kinds = {t.candidate.recipe.distillation for t in trials}
    assert len(kinds) > 1
    assert all(t.state == "complete" for t in trials)
    assert recipe_run.solutions
    trained = {t.candidate.id: t.candidate.recipe for t in trials if t.fidelity == Fidelity.FINAL}
    for solution in recipe_run.solutions:
        assert solution.candidate.recipe == trained[solution.id]
    usual = read_trials(fixed_run.run_dir / "study.db")
    assert {t.candidate.recipe for t in usual} == {Recipe()}


def test_recipes_alone_are_nothing_to_search(
    cnn: SmallCNN, fixed_profile: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="can take a setting of the techniques"):
        ac.search(
            cnn, "digits", device=fixed_profile, budget=BUDGET, progress="none",
            techniques=["distillation"], run_dir=tmp_path / "run",
        )  # fmt: skip


def test_packed_bytes_are_searched_and_bounded(
    cnn: SmallCNN, fixed_profile: Path, tmp_path: Path
) -> None:
    bound = 6000
    result = ac.search(
        cnn, "digits", device=fixed_profile, budget=BUDGET, seed=SEED, progress="none",
        objectives=["accuracy", "packed_bytes"], constraints={"packed_bytes": bound},
        run_dir=tmp_path / "run",
    )  # fmt: skip
    assert (result.pareto["packed_bytes"] <= bound).all()
    assert (result.trials["packed_bytes"] <= bound).all()
    assert result.best(max_packed_bytes=bound).metrics["packed_bytes"] <= bound
    trials = read_trials(result.run_dir / "study.db")
    policies = [policy for trial in trials for policy in trial.candidate.layers.values()]
    assert any(p.codebook or p.sparsity or p.weight_bits in (3, 5, 6) for p in policies)
