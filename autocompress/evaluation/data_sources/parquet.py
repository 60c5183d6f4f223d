"""A folder of parquet files with encoded images; CIFAR-10 in that form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from autocompress.errors import DataError
from autocompress.evaluation.data_sources.base import Loaded, folder
from autocompress.evaluation.data_sources.cache import Arrays, decoded
from autocompress.evaluation.data_sources.decode import decode
from autocompress.evaluation.splits import ArraySplit

_WANTED = "train.parquet (and val.parquet, test.parquet), columns image and label"
_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)
_CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def read(place: str) -> Loaded:
    """Images of one size, normalised by the train file's own mean and deviation per channel."""
    arrays, notes = _read_folder(place)
    pixels = arrays["train"][0]
    mean, std = channel_statistics(pixels)
    return _loaded(Path(place).resolve().name, arrays, mean, std, notes=notes)


def read_cifar10(place: str) -> Loaded:
    """CIFAR-10 (Krizhevsky 2009), normalised as is usual for it, trained with crops and flips."""
    arrays, notes = _read_folder(place)
    for name, (pixels, labels) in arrays.items():
        if pixels.shape[1:] != (3, 32, 32) or labels.max() > 9:
            raise DataError(
                f"{place}/{name}.parquet is not CIFAR-10: images of shape {pixels.shape[1:]}, "
                f"labels up to {labels.max()}; for other images write parquet:{place}"
            )
    return _loaded(
        "cifar10",
        arrays,
        _CIFAR10_MEAN,
        _CIFAR10_STD,
        augment="crop_flip",
        classes=_CIFAR10_CLASSES,
        notes=notes,
    )


def channel_statistics(pixels: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of uint8 images ``(n, c, h, w)``, as shares of 255."""
    levels = np.arange(256) / 255.0
    means, stds = [], []
    for channel in range(pixels.shape[1]):
        counts = np.bincount(pixels[:, channel].reshape(-1), minlength=256)
        mean = float((counts * levels).sum() / counts.sum())
        spread = float((counts * (levels - mean) ** 2).sum() / counts.sum()) ** 0.5
        means.append(round(mean, 4))
        stds.append(round(max(spread, 1e-4), 4))
    return tuple(means), tuple(stds)


def _read_folder(place: str) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    path = folder(place, wanted=_WANTED)
    if not (path / "train.parquet").is_file():
        there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise DataError(f"{path} holds no train.parquet (it holds {there}); looked for {_WANTED}")
    names = {"train": "train", "val": "val", "validation": "val", "dev": "val", "test": "test"}
    arrays: dict[str, Arrays] = {}
    notes: list[str] = []
    for stem, name in names.items():
        file = path / f"{stem}.parquet"
        if name not in arrays and file.is_file():
            arrays[name], note = decoded(file, lambda file=file: _decode(file))  # type: ignore[misc]
            notes += [note] if note else []
    return arrays, tuple(notes)


def _decode(path: Path) -> Arrays:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if not {"image", "label"} <= set(names):
            raise DataError(
                f"{path} has columns {', '.join(names)}; it needs image (encoded bytes) and label "
                "(for texts write text:DIR; of tables give tensors or a DataLoader)"
            )
        table = pq.read_table(path, columns=["image", "label"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable parquet file: {error}") from error
    if not pa.types.is_integer(table.schema.field("label").type):
        kind = table.schema.field("label").type
        raise DataError(f"{path}: column label is {kind}; it must hold integers from 0")
    if table.num_rows == 0:
        raise DataError(f"{path} holds no row")
    if table.column("label").null_count or table.column("image").null_count:
        raise DataError(f"{path} holds rows without image or label; drop them")
    images = [_bytes(value, path) for value in table.column("image").to_pylist()]
    pixels = decode(images, where=str(path), label=lambda i: f"the image in row {i}")
    return pixels, np.asarray(table.column("label").to_numpy(), dtype=np.int64)


def _bytes(value: object, path: Path) -> bytes:
    if isinstance(value, dict):  # Hugging Face's form: {"bytes": ..., "path": ...}
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise DataError(f"{path}: column image holds {type(value).__name__}, not encoded bytes")
    return value


def _loaded(
    name: str,
    arrays: dict[str, Arrays],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    augment: str | None = None,
    classes: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Loaded:
    splits = {
        key: ArraySplit(
            x, y, name=key, mean=mean, std=std, augment=augment if key == "train" else None
        )
        for key, (x, y) in arrays.items()
    }
    return Loaded(
        name=name,
        train=splits["train"],
        val=splits.get("val"),
        test=splits.get("test"),
        classes=classes,
        notes=notes,
    )
