"""Augmentations of whole batches, applied while training only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from autocompress.errors import DataError

Augmentation = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]

_PAD, _SHIFT = 4, 2


def crop_flip(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random crops of images padded by four zeros on each side, half of them mirrored.

    Args:
        images: shape ``(n, c, h, w)``, any dtype; zeros are black, so give them unnormalised.
        rng: where the randomness comes from.

    Returns:
        Images of the same shape and dtype (He et al. 2016, arXiv:1512.03385, section 4.2).
    """
    return _cropped(images, _PAD, rng, mirror=True)


def shift(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Images moved by up to two pixels each way, zeros coming in; for what must not be mirrored.

    Args:
        images: shape ``(n, c, h, w)``, any dtype; zeros are black, so give them unnormalised.
        rng: where the randomness comes from.

    Returns:
        Images of the same shape and dtype.
    """
    return _cropped(images, _SHIFT, rng, mirror=False)


def _cropped(
    images: torch.Tensor, pad: int, rng: np.random.Generator, *, mirror: bool
) -> torch.Tensor:
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    top = rng.integers(0, 2 * pad + 1, (n, 1))
    left = rng.integers(0, 2 * pad + 1, (n, 1))
    columns = np.arange(width)
    if mirror:
        columns = np.where(rng.random((n, 1)) < 0.5, columns[::-1], columns)
    rows = torch.from_numpy(top + np.arange(height))
    cols = torch.from_numpy(left + columns)
    each = torch.arange(n)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], cols[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: Mapping[str, Augmentation] = {"crop_flip": crop_flip, "shift": shift}


def augmentation(name: str) -> Augmentation:
    """The augmentation called ``name``.

    Raises:
        DataError: there is none.
    """
    try:
        return AUGMENTATIONS[name]
    except KeyError:
        known = ", ".join(sorted(AUGMENTATIONS))
        raise DataError(f"unknown augmentation {name!r}; use one of: {known}, or None") from None
