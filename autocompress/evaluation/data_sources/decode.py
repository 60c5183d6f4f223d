"""Encoded images to one uint8 array."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from autocompress.errors import DataError

Pixels = npt.NDArray[np.uint8]

_MAX_SHARE_OF_MEMORY = 0.5


def decode(
    images: Sequence[bytes | Path],
    *,
    where: str,
    label: Callable[[int], str],
    size: int | None = None,
    mode: str | None = None,
) -> Pixels:
    """All images as uint8, shape ``(n, channels, height, width)``.

    Args:
        images: encoded bytes, or files.
        where: named in errors.
        label: names image ``i`` in errors.
        size: when given, the shorter side becomes this long and the middle square is kept.
        mode: "L" for grey or "RGB"; None takes grey when all images are grey.

    Raises:
        DataError: an image cannot be decoded, sizes differ, or the whole does not fit in memory.
    """
    inferred = mode is None
    out: Pixels | None = None
    for i, image in enumerate(images):
        try:
            handle: IO[bytes] | Path = io.BytesIO(image) if isinstance(image, bytes) else image
            with Image.open(handle) as opened:
                grey = opened.mode in ("L", "1")
                mode = mode or ("L" if grey else "RGB")
                picture = opened.convert(mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{where}: {label(i)} is no readable image: {error}") from error
        if inferred and mode == "L" and not grey:  # not all are grey after all
            return decode(images, where=where, label=label, size=size, mode="RGB")
        if size is not None:
            picture = _middle(picture, size)
        array = np.asarray(picture, dtype=np.uint8)
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if out is None:
            out = _room(len(images), array.shape, where)
        if array.shape != out.shape[1:]:
            raise DataError(
                f"{where}: {label(i)} is {array.shape[2]}x{array.shape[1]} pixels, the first one "
                f"{out.shape[3]}x{out.shape[2]}; all must have one size "
                "(with images:DIR@SIZE they are resized and cropped)"
            )
        out[i] = array
    if out is None:
        raise DataError(f"{where} holds no image")
    return out


def _middle(picture: Image.Image, size: int) -> Image.Image:
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def _room(n: int, shape: tuple[int, ...], where: str) -> Pixels:
    need = n * int(np.prod(shape))
    free = int(psutil.virtual_memory().available)
    if need > free * _MAX_SHARE_OF_MEMORY:
        raise DataError(
            f"{where}: {n:,} images of shape {shape} need {need / 1e9:.1f} GB of the "
            f"{free / 1e9:.1f} GB free; give a DataLoader, which reads them in batches"
        )
    return np.empty((n, *shape), dtype=np.uint8)
