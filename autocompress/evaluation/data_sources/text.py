"""A folder of parquet files with labelled texts; SST-2 in that form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autocompress.errors import DataError
from autocompress.evaluation.data_sources.base import Loaded, folder
from autocompress.evaluation.splits import ArraySplit
from autocompress.evaluation.text.tokenizer import FILE, Tokenizer

_WANTED = "train.parquet (and val.parquet or dev.parquet, test.parquet), columns text and label"
#: Tokens of a vocabulary that is learned, and of the longest row that is asked for.
VOCABULARY = 8192
_LONGEST = 4096
_SPLITS = {"train": "train", "val": "val", "validation": "val", "dev": "val", "test": "test"}


def read(place: str) -> Loaded:
    """Texts as rows of token ids, int64 ``(n, length)``, padded with zeros.

    ``place`` is ``DIR``, or ``DIR@LENGTH`` for rows of so many tokens. The vocabulary is the file
    vocabulary.txt of the folder, or else learned from the training texts.
    """
    root, length = _parse(place)
    path = folder(root, wanted=_WANTED)
    if not (path / "train.parquet").is_file():
        there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise DataError(f"{path} holds no train.parquet (it holds {there}); looked for {_WANTED}")
    found: dict[str, tuple[list[str], npt.NDArray[np.int64]]] = {}
    for stem, name in _SPLITS.items():
        file = path / f"{stem}.parquet"
        if name not in found and file.is_file():
            found[name] = _read(file)
    tokenizer, told = _tokenizer(path / FILE, found["train"][0], length)
    splits, shares = {}, []
    for name, (listed, labels) in found.items():
        ids, cut = tokenizer.rows(listed)
        splits[name] = ArraySplit(ids, labels, name=name)
        shares.append(f"{cut / len(listed):.1%} of {name}")
    return Loaded(
        name=path.resolve().name,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        notes=(
            f"texts became rows of {tokenizer.length} tokens by a vocabulary of "
            f"{len(tokenizer):,} word pieces, {'; '.join(told)}; cut off were "
            f"{', '.join(shares)}",
        ),
        tokenizer=tokenizer,
    )


def _tokenizer(
    file: Path, texts: Sequence[str], length: int | None
) -> tuple[Tokenizer, tuple[str, ...]]:
    """That of the file, or learned; with what there is to say about it."""
    if file.is_file():
        tokenizer, origin = Tokenizer.load(file, length or 1), f"read from {file}"
    else:
        tokenizer = Tokenizer.learned(texts, size=VOCABULARY, length=length or 1)
        origin = f"learned from the {len(texts):,} training texts"
    notes = [origin]
    if length is None:
        needed = tokenizer.length_for(texts)
        tokenizer.length = min(needed, _LONGEST)
        if needed > _LONGEST:
            notes.append(
                f"99 in 100 training texts would fit into {needed:,} tokens; rows end after "
                f"{_LONGEST:,}"
            )
    return tokenizer, tuple(notes)


def read_sst2(place: str) -> Loaded:
    """Sentences of film reviews, negative or positive (Socher et al. 2013, SST-2)."""
    loaded = read(place)
    splits = (loaded.train, loaded.val, loaded.test)
    largest = max(int(split.targets.max()) for split in splits if split is not None)
    if largest > 1:
        raise DataError(
            f"{place} is not SST-2: labels go up to {largest}; for other texts write text:{place}"
        )
    return Loaded(
        "sst2", loaded.train, loaded.val, loaded.test, ("negative", "positive"), loaded.notes,
        loaded.tokenizer,
    )  # fmt: skip


def _parse(place: str) -> tuple[str, int | None]:
    root, at, length = place.rpartition("@")
    if not at or not length.isdecimal():
        return place, None
    if not 1 <= int(length) <= _LONGEST:
        raise DataError(f"the length is {length} tokens; it must be 1 to {_LONGEST}")
    return root, int(length)


def _read(path: Path) -> tuple[list[str], npt.NDArray[np.int64]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if not {"text", "label"} <= set(names):
            raise DataError(f"{path} has columns {', '.join(names)}; it needs text and label")
        table = pq.read_table(path, columns=["text", "label"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable parquet file: {error}") from error
    text, label = (table.schema.field(name).type for name in ("text", "label"))
    if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
        raise DataError(f"{path}: column text is {text}; it must hold texts")
    if not pa.types.is_integer(label):
        raise DataError(f"{path}: column label is {label}; it must hold integers from 0")
    if table.num_rows == 0:
        raise DataError(f"{path} holds no row")
    if table.column("label").null_count or table.column("text").null_count:
        raise DataError(f"{path} holds rows without text or label; drop them")
    labels = np.asarray(table.column("label").to_numpy(), dtype=np.int64)
    return table.column("text").to_pylist(), labels
