"""Augmentations of whole batches, applied while training only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from autocompress.errors import DataError

Augmentation = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]

_PAD = 4


def crop_flip(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Random crops of images padded by four zeros on each side, half of them mirrored.

    Args:
        images: shape ``(n, c, h, w)``, any dtype; zeros are black, so give them unnormalised.
        rng: where the randomness comes from.

    Returns:
        Images of the same shape and dtype (He et al. 2016, arXiv:1512.03385, section 4.2).
    """
    n, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (_PAD, _PAD, _PAD, _PAD))
    top = rng.integers(0, 2 * _PAD + 1, (n, 1))
    left = rng.integers(0, 2 * _PAD + 1, (n, 1))
    columns = np.arange(width)
    flipped = np.where(rng.random((n, 1)) < 0.5, columns[::-1], columns)
    rows = torch.from_numpy(top + np.arange(height))
    cols = torch.from_numpy(left + flipped)
    each = torch.arange(n)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], cols[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


AUGMENTATIONS: Mapping[str, Augmentation] = {"crop_flip": crop_flip}


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
