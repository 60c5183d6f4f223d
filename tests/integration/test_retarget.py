"""A second device, or other bounds, from what a run has found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import autocompress as ac
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import InfeasibleError, RequestError
from autocompress.hardware import LatencyPredictor
from autocompress.search.store import read_trials
from tests.integration.runs import SmallCNN

OTHER = "raspberry_pi_4"


@pytest.fixture(scope="module")
def again(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path_factory: pytest.TempPathFactory
) -> ac.SearchResult:
    """Opened from its folder, as another process would."""
    return ac.SearchResult(fixed_run.run_dir).retarget(
        OTHER, model=cnn, run_dir=tmp_path_factory.mktemp("runs") / "again", progress="none"
    )


def test_a_verified_front_at_the_other_devices_prices(
    again: ac.SearchResult, cnn: SmallCNN
) -> None:
    assert again.view.status == "complete"
    assert len(again.solutions) >= 1
    assert again.baseline["latency_estimate_ms"].notna().all()
    space = ElasticSpace.from_model(cnn, (ac.Data.load("digits").example()[0],))
    predictor = LatencyPredictor(ac.load_profile(OTHER))
    for solution in again.solutions:
        assert all(check["ok"] for check in solution.manifest["checks"])
        price = predictor.estimate(space.graph.operations(solution.candidate))
        assert solution.metrics["latency_estimate_ms"] == pytest.approx(price.value, rel=1e-6)


def test_nothing_was_evaluated_or_trained(
    again: ac.SearchResult, fixed_run: ac.SearchResult
) -> None:
    before = read_trials(fixed_run.run_dir / "study.db")
    after = read_trials(again.run_dir / "study.db")
    assert [t.candidate for t in after] == [t.candidate for t in before]
    assert [t.metrics.get("accuracy") for t in after] == [t.metrics.get("accuracy") for t in before]
    pairs = [(a, b) for a, b in zip(after, before, strict=True) if b.state == "complete"]
    assert all(a.metrics["latency_ms"] != b.metrics["latency_ms"] for a, b in pairs)
    assert all(a.metrics["size_bytes"] == b.metrics["size_bytes"] for a, b in pairs)
    decisions = [
        json.loads(line) for line in (again.run_dir / "decisions.jsonl").read_text().splitlines()
    ]
    (chosen,) = (d for d in decisions if d["stage"] == "retarget")
    assert chosen["evidence"]["trained"] is False
    assert "finalise" not in {d["stage"] for d in decisions}


def test_finalised_models_are_taken_over_as_they_are(
    again: ac.SearchResult, fixed_run: ac.SearchResult
) -> None:
    before = {s.id: s.metrics["accuracy"] for s in fixed_run.solutions}
    shared = [s for s in again.solutions if s.id in before]
    assert shared
    for solution in shared:
        assert solution.metrics["accuracy"] == pytest.approx(before[solution.id], abs=0.01)


def test_goes_on_where_it_was_interrupted(
    again: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    folder = shutil.copytree(again.run_dir, tmp_path / "cut")
    (folder / "pareto.csv").unlink()
    (folder / "study.db").unlink()
    resumed = ac.resume(folder, cnn, progress="none")
    assert [s.id for s in resumed.solutions] == [s.id for s in again.solutions]


def test_other_bounds_on_the_same_device_with_training(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    bound = int(fixed_run.pareto["size_bytes"].median())
    found = fixed_run.retarget(
        constraints={"size_bytes": bound}, budget="20s", models=3, run_dir=tmp_path / "run",
        progress="none",
    )  # fmt: skip
    assert (found.pareto["size_bytes"] <= bound).all()
    assert found.view.section("request")["device"] == fixed_run.view.section("request")["device"]


def test_what_cannot_be(fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path) -> None:
    opened = ac.SearchResult(fixed_run.run_dir)
    with pytest.raises(RequestError, match="give it again"):
        opened.retarget(OTHER, run_dir=tmp_path / "a")
    with pytest.raises(RequestError, match="other weights"):
        opened.retarget(OTHER, model=SmallCNN(), run_dir=tmp_path / "b")
    with pytest.raises(RequestError, match="give another run_dir"):
        opened.retarget(OTHER, model=cnn, run_dir=fixed_run.run_dir)
    with pytest.raises(RequestError, match="in seconds"):
        opened.retarget(OTHER, model=cnn, budget=ac.Budget(trials=3), run_dir=tmp_path / "c")
    with pytest.raises(InfeasibleError):
        opened.retarget(
            OTHER, model=cnn, constraints={"size_bytes": 10.0}, run_dir=tmp_path / "d",
            progress="none",
        )  # fmt: skip
