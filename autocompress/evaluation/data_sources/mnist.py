"""MNIST from its IDX files, compressed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from autocompress.errors import DataError
from autocompress.evaluation.data_sources.base import Loaded, folder
from autocompress.evaluation.splits import ArraySplit

_MEAN = (0.1307,)
_STD = (0.3081,)
_WANTED = "train-images-idx3-ubyte(.gz) and its three companions"
_UNSIGNED_BYTE = 0x08


def read(place: str) -> Loaded:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey 28x28 images, normalised with its mean.

    The files may lie in the folder itself, in ``raw/`` or in ``MNIST/raw/`` as torchvision puts
    them.
    """
    path = folder(place, wanted=_WANTED)
    return Loaded(
        name="mnist",
        train=_split(path, "train", "train"),
        test=_split(path, "t10k", "test"),
        classes=tuple("0123456789"),
    )


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An IDX file of unsigned bytes; the format is described at yann.lecun.com/exdb/mnist.

    Raises:
        DataError: it is no such file, or is cut short or too long.
    """
    try:
        with _open(path) as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if zeros != 0 or kind != _UNSIGNED_BYTE or not 1 <= dimensions <= 4:
                raise DataError(f"{path} is no IDX file of unsigned bytes")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = math.prod(shape)
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is no readable IDX file: {error}") from error
    if len(data) != size:
        more = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{path} should hold {size:,} bytes of data, it holds {more}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _split(path: Path, prefix: str, name: str) -> ArraySplit:
    images = read_idx(_find(path, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(path, f"{prefix}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1:
        raise DataError(f"{path}: the {prefix} files have shapes {images.shape}, {labels.shape}")
    return ArraySplit(images[:, None], labels.astype(np.int64), name=name, mean=_MEAN, std=_STD)


def _find(path: Path, stem: str) -> Path:
    for where in (path, path / "raw", path / "MNIST" / "raw"):
        for name in (f"{stem}.gz", stem):
            if (where / name).is_file():
                return where / name
    raise DataError(
        f"{path} holds no {stem}(.gz), nor do its raw/ and MNIST/raw/; looked for {_WANTED}"
    )
