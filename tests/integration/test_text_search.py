"""A real search on sentences: from texts to verified models that take rows of any length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest

import autocompress as ac
from autocompress.core.files import sha256_of
from autocompress.evaluation.text.tokenizer import Tokenizer

pytestmark = [pytest.mark.shared_data, pytest.mark.slow]

LENGTH = 32


@pytest.fixture(scope="module")
def sentences(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of SST-2 in a folder of its own."""
    if not (shared_data / "sst2").is_dir():
        pytest.skip(f"no SST-2 in {shared_data}")
    folder = tmp_path_factory.mktemp("sst2")
    for name, rows in (("train", 2048), ("dev", 400), ("test", 500)):
        table = pq.read_table(shared_data / "sst2" / f"{name}.parquet")
        pq.write_table(table.slice(0, rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def result(sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> ac.SearchResult:
    """For a device that is not here: nothing is measured, so that only the budget decides."""
    return ac.search(
        "text_encoder", f"sst2:{sentences}@{LENGTH}",
        device="raspberry_pi_5", budget=ac.Budget(trials=4, train_steps=120),
        techniques=["pruning", "quantization", "low_rank"],
        run_dir=tmp_path_factory.mktemp("run") / "run", progress=False, seed=1,
    )  # fmt: skip


def test_verified_models_come_back(result: ac.SearchResult) -> None:
    assert result.view.status == "complete"
    assert result.solutions
    assert set(result.pareto["agreement"] >= 0.99) == {True}
    baseline = result.baseline.set_index("id").loc["baseline-fp32"]
    assert (result.pareto["size_bytes"] < baseline["size_bytes"]).all()


def test_any_batch_and_length_run(result: ac.SearchResult, sentences: Path) -> None:
    """Padding, as much as a row has of it, changes nothing."""
    texts = pq.read_table(sentences / "test.parquet").column("text").to_pylist()[:40]
    for solution in result.solutions:
        tokenizer = Tokenizer.load(solution.path.parent / "vocabulary.txt", LENGTH)
        rows, _ = tokenizer.rows(texts)
        session = onnxruntime.InferenceSession(str(solution.path))
        assert session.get_inputs()[0].shape == ["batch", "length"]
        (whole,) = session.run(None, {"ids": rows})
        for row, expected in zip(rows[:10], whole, strict=False):
            short = row[row != 0][None]
            (found,) = session.run(None, {"ids": short})
            assert found.shape == (1, 2)
            assert np.abs(found[0] - expected).max() <= 0.05 * max(1.0, np.abs(whole).max())


def test_a_model_has_its_vocabulary(result: ac.SearchResult, tmp_path: Path) -> None:
    solution = result.solutions[0]
    tokens = solution.manifest["tokens"]
    assert tokens["sha256"] == sha256_of(solution.path.parent / "vocabulary.txt")
    assert (tokens["length"], tokens["padding_id"]) == (LENGTH, 0)
    saved = solution.save(tmp_path / "film.onnx")
    again = Tokenizer.load(tmp_path / "film.vocabulary.txt", LENGTH)
    assert len(again) == onnx_rows(saved)
    assert json.loads((tmp_path / "film.manifest.json").read_text())["tokens"] == tokens
    ac.verify(saved)


def onnx_rows(path: Path) -> int:
    """Rows of the largest table of a file."""
    graph = onnx.load(path).graph
    return max(int(t.dims[0]) for t in graph.initializer if len(t.dims) == 2)


def test_a_lost_vocabulary_is_written_again(result: ac.SearchResult) -> None:
    solution = result.solutions[0]
    vocabulary = solution.path.parent / "vocabulary.txt"
    before = vocabulary.read_bytes()
    vocabulary.unlink()
    again = ac.resume(result.run_dir, progress=False)
    assert (again.solutions[0].path.parent / "vocabulary.txt").read_bytes() == before
