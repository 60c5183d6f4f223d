"""Scikit-learn's bundled digits: nothing to download, small enough for a first minute."""

from __future__ import annotations

import numpy as np

from autocompress.evaluation.data_sources.base import Loaded
from autocompress.evaluation.seeding import choose
from autocompress.evaluation.splits import ArraySplit

_SPLIT_SEED = 0
_SHARE = 0.2


def read(_place: str = "") -> Loaded:
    """The 1,797 digits as float32 ``(n, 1, 8, 8)`` in [0, 1], with a fixed split.

    20 % are for test, 20 % for validation, by class and always the same ones. Source: the test
    part of "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998, UCI.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = (pixels.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    y = labels.astype(np.int64)
    n = int(len(y) * _SHARE)
    test = choose(len(y), n, _SPLIT_SEED, y)
    rest = np.setdiff1d(np.arange(len(y)), test)
    val = rest[choose(len(rest), n, _SPLIT_SEED, y[rest])]
    train = np.setdiff1d(rest, val)
    return Loaded(
        name="digits",
        train=ArraySplit(x[train], y[train], name="train"),
        val=ArraySplit(x[val], y[val], name="val"),
        test=ArraySplit(x[test], y[test], name="test"),
        classes=tuple("0123456789"),
    )
