"""A second device, or other bounds, from what a run has found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import autocompress as ac
from autocompress.agent.stages import take_over
from autocompress.core.budget import Fidelity
from autocompress.elastic.space import ElasticSpace
from autocompress.errors import InfeasibleError, RequestError, StorageError
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


@pytest.mark.parametrize("stage", ["take_over", "baseline", "retarget", "verify"])
def test_goes_on_where_it_was_ended(
    again: ac.SearchResult,
    fixed_run: ac.SearchResult,
    cnn: SmallCNN,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    """Ended at the end of a stage; from the first on, without the run that it started from."""
    source = Path(shutil.copytree(fixed_run.run_dir, tmp_path / "source"))
    module = import_module(f"autocompress.agent.stages.{stage}")
    run = module.run

    def ended(context: Any) -> None:
        run(context)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", ended)
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        ac.SearchResult(source).retarget(OTHER, model=cnn, run_dir=folder, progress="none")
    monkeypatch.setattr(module, "run", run)
    shutil.rmtree(source)
    resumed = ac.resume(folder, cnn, progress="none")
    assert not source.exists()
    assert [s.id for s in resumed.solutions] == [s.id for s in again.solutions]
    assert resumed.view.status == "complete"


def test_a_source_that_is_gone_is_named(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(fixed_run.run_dir, tmp_path / "source"))
    monkeypatch.setattr(take_over, "run", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        ac.SearchResult(source).retarget(
            OTHER, model=cnn, run_dir=tmp_path / "cut", progress="none"
        )
    monkeypatch.undo()
    shutil.rmtree(source)
    with pytest.raises(StorageError, match="is gone; put it back"):
        ac.resume(tmp_path / "cut", cnn, progress="none")


def _interrupted(context: Any) -> None:
    raise KeyboardInterrupt


def test_other_bounds_with_training(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    source = _without_finals(fixed_run, tmp_path / "source")
    bound = int(fixed_run.pareto["size_bytes"].max())
    found = source.retarget(
        constraints={"size_bytes": bound}, budget="6s", models=2, model=cnn,
        run_dir=tmp_path / "run", progress="none",
    )  # fmt: skip
    assert (found.pareto["size_bytes"] <= bound).all()
    priced = found.baseline["latency_estimate_ms"].tolist()
    assert priced == pytest.approx(fixed_run.baseline["latency_estimate_ms"].tolist())
    before, after = (read_trials(r.run_dir / "study.db") for r in (source, found))
    trained = after[len(before) :]
    assert trained
    assert {t.origin for t in trained} == {"chosen:retarget"}
    resumed = ac.resume(found.run_dir, cnn, progress="none")  # complete: nothing is done again
    assert len(read_trials(resumed.run_dir / "study.db")) == len(after)


def _without_finals(run: ac.SearchResult, folder: Path) -> ac.SearchResult:
    """A copy of a run that was ended before it finalised anything."""
    shutil.copytree(run.run_dir, folder)
    trials = [t for t in read_trials(folder / "study.db") if t.fidelity != Fidelity.FINAL]
    for path in folder.glob("study.db*"):
        path.unlink()
    take_over.store(folder / "study.db", trials)
    for trial in trials:
        (folder / "checkpoints" / f"{trial.candidate.id}.safetensors").unlink(missing_ok=True)
    return ac.SearchResult(folder)


def test_candidates_that_were_not_finalised_are_taken_untrained(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    source = _without_finals(fixed_run, tmp_path / "source")
    found = source.retarget(
        OTHER, objectives=["accuracy", "size_bytes"], model=cnn, run_dir=tmp_path / "run",
        progress="none",
    )  # fmt: skip
    original = float(found.baseline["accuracy"].iloc[0])
    made = [*found.run_dir.glob("models/*/model.onnx"), *found.run_dir.glob("rejected/*")]
    assert len(made) > 2  # more than the baselines
    assert (found.pareto["val_accuracy"] >= 0.65 * original).all()
    assert len(read_trials(found.run_dir / "study.db")) == len(
        read_trials(source.run_dir / "study.db")
    )


def test_a_named_space_with_its_elastic_weights(space_run: ac.SearchResult, tmp_path: Path) -> None:
    first = space_run.retarget(OTHER, run_dir=tmp_path / "first", progress="none")
    trained = space_run.run_dir / "checkpoints" / "elastic.safetensors"
    assert trained.is_file()
    assert (first.run_dir / "checkpoints" / "elastic.safetensors").is_file()
    assert len(first.solutions) >= 1
    # and again from there: the space is still the first run's
    second = ac.SearchResult(first.run_dir).retarget(
        "raspberry_pi_5", run_dir=tmp_path / "second", progress="none"
    )
    runs = [read_trials(r.run_dir / "study.db") for r in (space_run, first, second)]
    for one, two, three in zip(*runs, strict=True):
        assert one.candidate == two.candidate == three.candidate


def test_packed_bytes_after_a_run_that_did_not_price_them(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    bound = float(fixed_run.pareto["packed_bytes"].median())
    found = ac.SearchResult(fixed_run.run_dir).retarget(
        objectives=["accuracy", "packed_bytes"], constraints={"packed_bytes": bound}, model=cnn,
        run_dir=tmp_path / "run", progress="none",
    )  # fmt: skip
    assert (found.pareto["packed_bytes"] <= bound).all()
    assert found.trials["packed_bytes"].notna().all()


def test_a_metric_that_is_better_when_smaller(ink_run: ac.SearchResult, tmp_path: Path) -> None:
    found = ink_run.retarget(OTHER, run_dir=tmp_path / "run", progress="none")
    assert len(found.solutions) >= 1


def test_precisions_that_the_device_lacks_are_left_out_and_counted(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    profile = ac.load_profile(OTHER)
    floats = tuple(p for p in profile.capabilities.precisions if p.name == "fp32")
    board = replace(profile, id="floats", capabilities=replace(
        profile.capabilities, precisions=floats
    ))  # fmt: skip
    try:
        found = ac.SearchResult(fixed_run.run_dir).retarget(
            board, model=cnn, run_dir=tmp_path / "run", progress="none"
        )
    except InfeasibleError as error:
        assert "computes in what floats offers (fp32)" in str(error)  # noqa: PT017
        return
    for solution in found.solutions:
        assert set(solution.explain()["activation_bits"]) == {32}


def test_what_cannot_be(fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path) -> None:
    opened = ac.SearchResult(fixed_run.run_dir)

    def refused(match: str, error: type[Exception] = RequestError, **asked: Any) -> None:
        given: dict[str, Any] = {"device": OTHER, "model": cnn, "progress": "none"} | asked
        with pytest.raises(error, match=match):
            opened.retarget(**given)

    refused(r"give it again: autocompress.SearchResult\(.*\).retarget\(model=", model=None)
    refused("other weights", model=SmallCNN())
    refused("give another run_dir", run_dir=fixed_run.run_dir)
    refused("give seconds", budget=ac.Budget(trials=3))
    refused("give at least 1", models=0)
    refused("write 0.02 for 2 %", constraints={"accuracy_drop": 2})
    refused("no energy model", device="amd_epyc_zen5_avx512", constraints={"energy_mj": 1})
    refused("size_bytes <= 10", InfeasibleError, constraints={"size_bytes": 10.0},
            run_dir=tmp_path / "d")  # fmt: skip
    refused("holds a run", run_dir=tmp_path / "d", models=3, constraints={"size_bytes": 10.0})


def test_candidates_exist_but_none_of_use(
    fixed_run: ac.SearchResult, cnn: SmallCNN, tmp_path: Path
) -> None:
    with pytest.raises(InfeasibleError, match="accuracy >= 1"):
        ac.SearchResult(fixed_run.run_dir).retarget(
            OTHER, model=cnn, constraints={"accuracy": 1.0}, run_dir=tmp_path / "run",
            progress="none",
        )  # fmt: skip
