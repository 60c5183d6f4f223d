"""A folder of images, one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autocompress.errors import DataError
from autocompress.evaluation.data_sources.base import Loaded, folder
from autocompress.evaluation.data_sources.cache import Arrays
from autocompress.evaluation.data_sources.decode import decode
from autocompress.evaluation.data_sources.parquet import channel_statistics
from autocompress.evaluation.splits import ArraySplit

_WANTED = "train/CLASS/*.png (and val/, test/ alike)"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"})


def read(place: str) -> Loaded:
    """Images in torchvision's ImageFolder layout, decoded into memory.

    ``place`` is ``DIR`` when all images have one size, ``DIR@SIZE`` to make the shorter side SIZE
    pixels and keep the middle square. Labels follow the sorted names of the folders in ``train/``.
    """
    root, size = _parse(place)
    path = folder(root, wanted=_WANTED)
    if not (path / "train").is_dir():
        raise DataError(f"{path} holds no folder train; looked for {_WANTED}")
    classes = tuple(sorted(p.name for p in (path / "train").iterdir() if p.is_dir()))
    if len(classes) < 2:
        raise DataError(
            f"{path / 'train'} holds {len(classes)} class folders; it needs one per class"
        )
    train = _read(path / "train", classes, size, None)
    mode = "L" if train[0].shape[1] == 1 else "RGB"
    mean, std = channel_statistics(train[0])
    found = {"train": train}
    for stem, name in {"val": "val", "valid": "val", "validation": "val", "test": "test"}.items():
        if name not in found and (path / stem).is_dir():
            found[name] = _read(path / stem, classes, size, mode)
    splits = {k: ArraySplit(x, y, name=k, mean=mean, std=std) for k, (x, y) in found.items()}
    return Loaded(
        name=path.resolve().name,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        classes=classes,
    )


def _parse(place: str) -> tuple[str, int | None]:
    root, at, size = place.rpartition("@")
    if not at or not size.isdigit():
        return place, None
    if not 4 <= int(size) <= 4096:
        raise DataError(f"image size is {size}; it must be 4 to 4096 pixels")
    return root, int(size)


def _read(path: Path, classes: tuple[str, ...], size: int | None, mode: str | None) -> Arrays:
    unknown = sorted(p.name for p in path.iterdir() if p.is_dir() and p.name not in classes)
    if unknown:
        raise DataError(f"{path} holds classes that train/ does not: {', '.join(unknown[:5])}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        of_class = (path / name).glob("**/*")
        mine = sorted(p for p in of_class if p.suffix.lower() in _SUFFIXES and p.is_file())
        files += mine
        labels += [label] * len(mine)
    if not files:
        raise DataError(f"{path} holds no image; looked for {_WANTED}")
    pixels = decode(files, where=str(path), label=lambda i: str(files[i]), size=size, mode=mode)
    return pixels, np.asarray(labels, dtype=np.int64)
