"""The data of a search: what to train on, choose by, report on and calibrate with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autocompress.errors import DataError
from autocompress.evaluation.augment import augmentation
from autocompress.evaluation.seeding import choose
from autocompress.evaluation.splits import ArraySplit, Batch, DatasetSplit, LoaderSplit, Split, wrap
from autocompress.evaluation.text.tokenizer import Tokenizer

#: Share of the training examples held out when no validation examples are given.
VAL_SHARE = 0.1
#: Calibration examples taken from the training examples when none are given.
CALIBRATION_SIZE = 256
#: At the end of a source's name: half of its test examples become validation examples.
HALVES = "?val=test"
#: Examples of a split read to describe it, when it does not tell its labels itself.
DESCRIBE_LIMIT = 2048


class Data:
    """Training, validation, test and calibration examples behind one interface.

    Each may be a DataLoader, a map-style Dataset, or a pair ``(inputs, targets)`` of tensors or
    arrays. Inputs are given as the model takes them (normalised, float32), batch first.

    Args:
        train: what candidates are trained on.
        val: what the search chooses by; None holds a tenth of ``train`` out, by class. The text
            "test" takes half of ``test``: for a model that has been trained on all of ``train``,
            whose accuracy there says little.
        test: what results are reported on, never searched on; None falls back to ``val``, and
            :attr:`notes` says so.
        calibration: what activation ranges are taken from; None takes 256 of ``train``.
        name: a short name for reports.
        num_classes: number of classes; None takes it from the labels. 0 means "no classes".
        augment: "crop_flip", "shift" or None; for training examples held in memory, images
            ``(n, c, h, w)`` where zero is black.
        seed: of what is held out and taken for calibration.

    Attributes:
        train: a :class:`~autocompress.evaluation.splits.Split`, as are ``val``, ``test`` and
            ``calibration``.
        notes: what was assumed or replaced, one sentence each.
        source: how it was asked for, such as ``"cifar10:data"``; None when given as objects.
        classes: class names in label order, or empty.
        tokenizer: what makes token ids of texts, saved beside every model; None for other data.
            Set it for ids of your own, so that your models can be used.

    Raises:
        DataError: something is missing, empty, of different lengths or shapes, not finite, or
            labelled out of range.
    """

    def __init__(
        self,
        train: Any = None,
        val: Any = None,
        test: Any = None,
        calibration: Any = None,
        *,
        name: str = "data",
        num_classes: int | None = None,
        augment: str | None = None,
        seed: int = 0,
    ) -> None:
        if train is None:
            raise DataError("train is missing; give a DataLoader, a Dataset or (inputs, targets)")
        self.name = name
        self.notes: list[str] = []
        self.source: str | None = None
        self.classes: tuple[str, ...] = ()
        self.tokenizer: Tokenizer | None = None
        self._num_classes = num_classes
        self.train = wrap(train, "train")
        if val is None:
            self.train, self.val = self._held_out(self.train, seed)
        elif isinstance(val, str):
            self.val, test = self._halves(val, test, seed)
        else:
            self.val = wrap(val, "val")
        if test is None:
            self.test = self.val
            self.notes.append(
                "no test examples were given: results are reported on the validation examples the "
                "search chose by, so they are optimistic"
            )
        else:
            self.test = wrap(test, "test")
        if calibration is None:
            self.calibration = wrap(self.train.subset(CALIBRATION_SIZE, seed), "calibration")
        else:
            self.calibration = wrap(calibration, "calibration")
        self._set_augmentation(augment)
        self._check()

    @classmethod
    def load(cls, spec: str) -> Data:
        """Read data by name.

        Args:
            spec: ``"digits"``, ``"cifar10:DIR"``, ``"parquet:DIR"``, ``"mnist:DIR"``,
                ``"images:DIR"`` (``"images:DIR@SIZE"`` resizes and crops), ``"sst2:DIR"`` or
                ``"text:DIR"`` (``"text:DIR@LENGTH"`` makes rows of so many tokens). With
                ``?val=test`` at its end half of the test examples become the validation examples.

        Raises:
            DataError: no such source, or what it reads is missing or broken.
        """
        from autocompress.evaluation.data_sources import load

        loaded = load(spec.removesuffix(HALVES))
        val = "test" if spec.endswith(HALVES) else loaded.val
        data = cls(loaded.train, val, loaded.test, name=loaded.name)
        data.source = spec
        data.classes = loaded.classes
        data.tokenizer = loaded.tokenizer
        data.notes.extend(loaded.notes)
        return data

    @classmethod
    def of(cls, value: Data | str) -> Data:
        """``value`` itself, or what it names.

        Raises:
            DataError: it is neither, or cannot be read.
        """
        if isinstance(value, Data):
            return value
        if isinstance(value, str):
            return cls.load(value)
        raise DataError(
            f"data is a {type(value).__name__}; give ac.Data(train=...) or a text such as 'digits'"
        )

    @property
    def splits(self) -> dict[str, Split]:
        """The four splits by name."""
        return {
            "train": self.train,
            "val": self.val,
            "test": self.test,
            "calibration": self.calibration,
        }

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""
        return tuple(self.example()[0].shape[1:])

    @cached_property
    def target_shape(self) -> tuple[int, ...]:
        """Shape of one target, without the batch dimension; ``()`` for class labels."""
        return tuple(self.example()[1].shape[1:])

    @cached_property
    def num_classes(self) -> int | None:
        """Number of classes, or None when the targets are no integers.

        Taken from the labels: of all examples where they are known, of the first 2,048 of each
        split otherwise.
        """
        if self._num_classes is not None:
            return self._num_classes or None
        if self.example()[1].is_floating_point():
            return None
        largest = [int(self._labels(s)[0].max()) for s in (self.train, self.val, self.test)]
        return max([len(self.classes), *(label + 1 for label in largest)])

    @cached_property
    def vocabulary(self) -> int | None:
        """How many token ids there are, where the inputs may be rows of them; None otherwise.

        The tokenizer tells, or else the largest id: of all examples held in memory, and of the
        first 2,048 of each other split. Without a tokenizer, rows of integers are no ids where they
        are bytes or one of them is negative.
        """
        x = self.example()[0]
        if self.tokenizer is not None:
            return len(self.tokenizer)
        if x.ndim != 2 or x.dtype not in (torch.int64, torch.int32):
            return None
        bounds = [bound for s in self.splits.values() for bound in _bounds(s)]
        return None if min(bounds) < 0 else max(bounds) + 1

    def example(self, n: int = 2) -> Batch:
        """The first ``n`` calibration examples: inputs to trace a model with."""
        return self.calibration.first(n)

    def describe(self) -> dict[str, Any]:
        """Sizes, shapes and class balance, as plain JSON values."""
        return {
            "name": self.name,
            "source": self.source,
            "input_shape": list(self.input_shape),
            "target_shape": list(self.target_shape),
            "num_classes": self.num_classes,
            "vocabulary": self.vocabulary,
            "classes": list(self.classes),
            "notes": list(self.notes),
            "splits": {name: self._describe(split) for name, split in self.splits.items()},
        }

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={type(split).__name__}" for name, split in self.splits.items())
        return f"Data({self.name!r}, {sizes})"

    def _held_out(self, train: Split, seed: int) -> tuple[Split, Split]:
        n = max(1, round(len(train) * VAL_SHARE)) if not isinstance(train, LoaderSplit) else 0
        if isinstance(train, LoaderSplit):
            raise DataError(
                "val is missing and train is a DataLoader, which cannot be divided; give val=, or "
                "give train as a Dataset or a pair of tensors"
            )
        if len(train) < 2:
            raise DataError("train holds one example; with val missing it needs at least two")
        held = choose(len(train), n, seed, train.labels)
        rest = np.setdiff1d(np.arange(len(train)), held)
        self.notes.append(
            f"no validation examples were given: {n:,} of the {len(train):,} training examples "
            f"were held out{'' if train.labels is None else ', by class'}"
        )
        return _part(train, rest, "train"), _part(train, held, "val")

    def _halves(self, val: str, test: Any, seed: int) -> tuple[Split, Split]:
        if val != "test" or test is None:
            raise DataError(
                f"val is {val!r}; give validation examples, or 'test' together with test="
            )
        whole = wrap(test, "test")
        if isinstance(whole, LoaderSplit) or len(whole) < 2:
            raise DataError(
                "val='test' divides the test examples: give at least two, as a Dataset or a pair "
                "of tensors"
            )
        half = choose(len(whole), len(whole) // 2, seed, whole.labels)
        rest = np.setdiff1d(np.arange(len(whole)), half)
        self.notes.append(
            f"{len(half):,} of the {len(whole):,} test examples became validation examples, which "
            "the search chooses by; results are reported on the others"
        )
        return _part(whole, half, "val"), _part(whole, rest, "test")

    def _set_augmentation(self, augment: str | None) -> None:
        for split in (self.val, self.test, self.calibration):
            if isinstance(split, ArraySplit):
                split.augment = None
        if augment is None:
            return
        augmentation(augment)
        if not isinstance(self.train, ArraySplit) or self.train.inputs.ndim != 4:
            raise DataError(
                f"augment={augment!r} needs training images (n, c, h, w) held in memory; augment "
                "in your own Dataset or DataLoader instead"
            )
        self.train.augment = augment

    def _check(self) -> None:
        shapes = {}
        for name, split in self.splits.items():
            x, y = split.first(1)
            shapes[name] = (tuple(x.shape[1:]), x.dtype, tuple(y.shape[1:]), y.dtype)
        for name, shape in shapes.items():
            if shape != shapes["train"]:
                raise DataError(
                    f"{name} has inputs {_words(shape[:2])} and targets {_words(shape[2:])}, train "
                    f"has {_words(shapes['train'][:2])} and {_words(shapes['train'][2:])}; "
                    "all splits must look alike"
                )
        if self._num_classes:
            for name, split in self.splits.items():
                largest = int(self._labels(split)[0].max())
                if largest >= self._num_classes:
                    raise DataError(
                        f"{name} holds label {largest}; with num_classes={self._num_classes} "
                        f"labels go from 0 to {self._num_classes - 1}"
                    )

    @staticmethod
    def _labels(split: Split) -> tuple[npt.NDArray[np.int64], bool]:
        """Class labels of a split, and whether they are all of them."""
        known = split.labels
        if known is not None:
            return known, True
        seen = [y.numpy().reshape(-1) for _, y in split.batches(256, limit=DESCRIBE_LIMIT)]
        return np.concatenate(seen).astype(np.int64), False

    def _describe(self, split: Split) -> dict[str, Any]:
        out: dict[str, Any] = {"examples": len(split), "kind": type(split).__name__}
        if isinstance(split, ArraySplit):
            out["mean"] = None if split.mean is None else list(split.mean)
            out["std"] = None if split.std is None else list(split.std)
            out["augment"] = split.augment
        if self.num_classes is not None and self.target_shape == ():
            labels, complete = self._labels(split)
            counts = np.bincount(labels, minlength=self.num_classes)
            out["class_counts"] = [int(c) for c in counts]
            out["class_counts_complete"] = complete
        return out


def _bounds(split: Split) -> tuple[int, int]:
    """Smallest and largest input."""
    if isinstance(split, ArraySplit):
        return int(split.inputs.min()), int(split.inputs.max())
    ids = [x for x, _ in split.batches(256, limit=DESCRIBE_LIMIT)]
    return min(int(x.min()) for x in ids), max(int(x.max()) for x in ids)


def _part(split: Split, index: npt.NDArray[np.int64], name: str) -> Split:
    if isinstance(split, DatasetSplit):
        return DatasetSplit(split.dataset, name=name, index=split.index[index])
    if isinstance(split, ArraySplit):
        part = split.take(index)
        part.name = name
        return part
    raise DataError(f"{name}: a {type(split).__name__} cannot be divided; give val=")


def _words(shape: Sequence[Any]) -> str:
    return f"{shape[0]} {str(shape[1]).removeprefix('torch.')}"
