"""What every data source gives, and how it complains about a place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autocompress.errors import DataError
from autocompress.evaluation.splits import ArraySplit
from autocompress.evaluation.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Loaded:
    """Data read from a source.

    Attributes:
        name: a short name, such as "cifar10".
        train: training examples.
        val: validation examples, or None when the source has none.
        test: test examples, or None when the source has none.
        classes: class names in label order; empty when they have none.
        notes: anything a person should know about how it was read.
        tokenizer: what made token ids of texts; None for other data.
    """

    name: str
    train: ArraySplit
    val: ArraySplit | None = None
    test: ArraySplit | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tokenizer: Tokenizer | None = None


def folder(place: str, *, wanted: str) -> Path:
    """``place`` as an existing folder.

    Raises:
        DataError: it is not given, or is no folder.
    """
    if not place:
        raise DataError(f"no folder given; write it after the colon, a folder with {wanted}")
    path = Path(place).expanduser()
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; looked for a folder with {wanted}")
    return path
