"""Labelled texts in parquet files become rows of token ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from autocompress.elastic.registry import load_space
from autocompress.errors import DataError, RequestError
from autocompress.evaluation.data import Data
from autocompress.evaluation.text.tokenizer import PADDING_ID, Tokenizer

TEXTS = ["a fine film", "a bad film", "fine , fine", "not a film at all", "bad , bad , bad"] * 8


def write(folder: Path, stem: str = "train", **columns: Any) -> Path:
    given = {"text": TEXTS, "label": [i % 2 for i in range(len(TEXTS))]} | columns
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(given), folder / f"{stem}.parquet")
    return folder


def test_rows_of_ids(tmp_path: Path) -> None:
    place = write(tmp_path / "films")
    write(place, "dev", text=["a fine unseen film", ""], label=[1, 0])
    write(place, "test", text=["bad " * 30], label=[0])
    data = Data.load(f"text:{place}")
    assert data.tokenizer is not None
    assert (data.name, data.input_shape, data.num_classes) == ("films", (8,), 2)
    assert data.vocabulary == len(data.tokenizer)
    x, _ = data.val.first(2)
    assert x.dtype == torch.int64
    assert data.tokenizer.decode(x[0].tolist()).startswith("a fine ")
    assert int((x[1] != PADDING_ID).sum()) == 1
    assert "100.0% of test" in data.notes[-1]
    assert data.describe()["vocabulary"] == data.vocabulary


def test_the_length_can_be_given(tmp_path: Path) -> None:
    data = Data.load(f"text:{write(tmp_path / 'films')}@3")
    assert data.input_shape == (3,)


def test_a_vocabulary_that_lies_there_is_taken(tmp_path: Path) -> None:
    place = write(tmp_path / "films")
    Tokenizer(["[PAD]", "[UNK]", "film"], 4).save(place / "vocabulary.txt")
    data = Data.load(f"text:{place}@4")
    assert data.vocabulary == 3
    assert data.train.first(1)[0].tolist() == [[1, 1, 2, 0]]
    assert "read from" in data.notes[-1]


def test_a_vocabulary_that_lies_there_decides_the_length(tmp_path: Path) -> None:
    """Nothing is learned then: its own pieces are counted, though no word can be learned from."""
    long = ["y" * 101 + " films" * 9, "film"] * 20
    place = write(tmp_path / "films", text=long)
    letters = ["f", "##i", "##l", "##m", "##s"]
    Tokenizer(["[PAD]", "[UNK]", *letters], 4).save(place / "vocabulary.txt")
    assert Data.load(f"text:{place}").input_shape == (48,)  # 1 + 9 times 5, in steps of 8
    write(place, text=["y" * 101] * 40)
    assert Data.load(f"text:{place}").input_shape == (8,)


def test_rows_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autocompress.evaluation.data_sources import text

    monkeypatch.setattr(text, "_LONGEST", 8)
    data = Data.load(f"text:{write(tmp_path / 'films', text=['a fine film ' * 4] * 40)}")
    assert data.input_shape == (8,)
    assert "99 in 100 training texts would fit into 16 tokens; rows end after 8" in data.notes[-1]


def test_sst2_has_names_for_its_classes(tmp_path: Path) -> None:
    place = write(tmp_path / "any")
    assert Data.load(f"sst2:{place}").classes == ("negative", "positive")
    write(place, "test", label=[i % 3 for i in range(len(TEXTS))])
    with pytest.raises(DataError, match="labels go up to 2"):
        Data.load(f"sst2:{place}")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": [1.5] * len(TEXTS)}, "column text is double"),
        ({"label": ["x"] * len(TEXTS)}, "column label is string"),
        ({"text": [None, *TEXTS[1:]]}, "rows without text or label"),
        ({"text": [], "label": []}, "column text is null|holds no row"),
        ({"text": ["..."[:0]] * len(TEXTS)}, "hold no word"),
    ],
)
def test_unusable_columns(tmp_path: Path, columns: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Data.load(f"text:{write(tmp_path / 'films', **columns)}")


def test_unusable_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train\.parquet"):
        Data.load(f"text:{tmp_path}")
    pq.write_table(pa.table({"sentence": TEXTS}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="columns sentence; it needs text and label"):
        Data.load(f"text:{tmp_path}")
    with pytest.raises(DataError, match="it must be 1 to 4096"):
        Data.load(f"text:{tmp_path}@5000")
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="no readable parquet"):
        Data.load(f"text:{tmp_path}")


def test_ids_without_a_tokenizer_are_counted() -> None:
    ids, labels = np.arange(40).reshape(10, 4), np.arange(10) % 2
    assert Data((ids, labels)).vocabulary == 40
    assert Data((ids.astype(np.float32), labels)).vocabulary is None
    assert Data((ids.astype(np.int32), labels)).vocabulary == 40


@pytest.mark.parametrize("change", [lambda ids: ids - 1, lambda ids: ids.astype(np.uint8)])
def test_tables_of_numbers_are_no_ids(change: Callable[[Any], Any]) -> None:
    data = Data((change(np.arange(40).reshape(10, 4)), np.arange(10) % 2))
    assert data.vocabulary is None
    assert data.describe()["vocabulary"] is None
    with pytest.raises(RequestError, match=r"token ids .integers from 0.*bytes or negative"):
        load_space(
            "text_encoder", input_shape=data.input_shape, num_classes=2, vocabulary=data.vocabulary
        )
