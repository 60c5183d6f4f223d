from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.errors import StorageError
from autocompress.report.run_folder import NUMBER_COLUMNS, TEXT_COLUMNS, read_run
from tests.unit.report.run_folders import MODELS

MakeRun = Callable[..., Path]


def test_reads_everything(make_run: MakeRun) -> None:
    view = read_run(make_run())
    assert view.status == "complete"
    assert view.missing == ()
    assert list(view.pareto["id"]) == list(MODELS)  # smallest loss first
    assert list(view.baselines["id"]) == ["baseline-fp32", "baseline-int8"]
    assert set(view.manifests) == set(MODELS)
    assert set(view.rejected) == {"9f8e7d6c5b4a"}
    assert len(view.trials) == 40
    assert (view.trials["state"] == "failed").sum() == 3
    assert view.trials["accuracy"].notna().sum() == 37
    assert len(view.decisions) == 1
    assert view.profile == {"device": {"name": "local"}}
    assert view.place == "Fixture CPU"


def test_a_run_of_your_own_model_is_resumed_with_it(make_run: MakeRun) -> None:
    view = read_run(make_run())
    assert view.resume_command == f"autocompress resume {view.directory}"
    own = replace(view, run={"request": {"kind": "ResNet"}})
    assert own.resume_command.endswith(" --model FILE.py:FUNCTION")


def test_an_id_of_digits_only_stays_text(make_run: MakeRun) -> None:
    assert "123456789012" in set(read_run(make_run()).pareto["id"])


@pytest.mark.parametrize(
    "name",
    [
        "plan.json",
        "graph.json",
        "decisions.jsonl",
        "study.db",
        "baseline.json",
        "pareto.csv",
        "device",
        "models",
        "rejected",
    ],
)
def test_an_interrupted_run_may_lack_any_file(make_run: MakeRun, name: str) -> None:
    folder = make_run()
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    view = read_run(folder)
    assert set(view.pareto.columns) == {*TEXT_COLUMNS, *NUMBER_COLUMNS}


def test_a_run_that_has_just_begun(make_run: MakeRun) -> None:
    folder = make_run()
    for path in folder.iterdir():
        if path.name != "run.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    view = read_run(folder)
    assert view.models.empty
    assert view.trials.empty
    assert "pareto.csv" in view.missing


def test_baselines_come_from_the_early_file_until_the_front_is_there(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "pareto.csv").unlink()
    view = read_run(folder)
    assert list(view.baselines["id"]) == ["baseline-fp32", "baseline-int8"]
    assert view.baselines["latency_ms"].iloc[0] == 0.444
    assert view.pareto.empty


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("run.toml", "[run\n", id="toml"),
        pytest.param("run.toml", b"\xff\xfe\x00", id="not-text"),
        pytest.param("plan.json", '{"stages": [', id="truncated-json"),
        pytest.param("graph.json", "[]", id="wrong-kind"),
        pytest.param("baseline.json", '[{"id": "a", "latency_ms": "fast"}]', id="wrong-type"),
        pytest.param("pareto.csv", "id,latency_ms\na,fast\n", id="csv-not-a-number"),
        pytest.param("pareto.csv", "name\na\n", id="csv-without-id"),
        pytest.param("pareto.csv", "", id="csv-empty"),
        pytest.param("study.db", "this is no database", id="database"),
        pytest.param("decisions.jsonl", '{"a": 1}\n{"b"\n{"c": 3}\n', id="json-line"),
        pytest.param("device/profile.toml", "= 3", id="profile"),
        pytest.param("models/1a2b3c4d5e6f/manifest.json", "{", id="manifest"),
    ],
)
def test_a_corrupt_file_is_named(make_run: MakeRun, name: str, content: str | bytes) -> None:
    folder = make_run()
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(raw)
    with pytest.raises(StorageError, match=name.replace(".", r"\.")):
        read_run(folder)


def test_a_torn_last_decision_is_left_out(make_run: MakeRun) -> None:
    folder = make_run()
    with (folder / "decisions.jsonl").open("a") as file:
        file.write(json.dumps({"stage": "search", "sentence": "x"})[:15])
    assert len(read_run(folder).decisions) == 1


@pytest.mark.parametrize("there", [True, False], ids=["no-run-toml", "no-folder"])
def test_a_folder_that_is_no_run(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "x"
    if there:
        folder.mkdir()
    with pytest.raises(StorageError, match="folder that search printed"):
        read_run(folder)
