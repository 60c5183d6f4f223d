"""One interface over every form of data: arrays in memory, Datasets, DataLoaders."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from autocompress.errors import DataError
from autocompress.evaluation.augment import augmentation
from autocompress.evaluation.seeding import choose, seeded_iteration

Array: TypeAlias = npt.NDArray[Any]
Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]

_CHUNK = 4096


class Split(ABC):
    """Examples of one purpose (training, validation, test, calibration).

    Iterating twice with the same arguments gives the same batches, as far as the user's own
    Dataset or DataLoader draws its randomness from torch.
    """

    name: str = "data"

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        limit: int | None = None,
        augment: bool | None = None,
    ) -> Iterator[Batch]:
        """Yield ``(inputs, targets)``, ready for the model.

        Args:
            batch_size: examples per batch; a DataLoader keeps its own.
            shuffle: another order per ``seed``; a DataLoader keeps its own order. A last batch
                of a single example is left out when shuffling, since batch norm cannot train on it.
            seed: of the order and of the augmentation.
            limit: at most this many examples.
            augment: apply the split's augmentation; None means "when shuffling".

        Raises:
            DataError: a batch is no pair, its lengths differ, or it holds NaN or infinity.
        """

    @abstractmethod
    def subset(self, n: int, seed: int = 0) -> Split:
        """At most ``n`` examples, the same for the same seed, by class where labels are known."""

    @property
    @abstractmethod
    def in_memory(self) -> bool:
        """Whether :meth:`arrays` costs no pass over the user's own data."""

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The class of every example where that is known without reading the inputs."""
        return None

    def arrays(self) -> tuple[Array, Array]:
        """All inputs and targets as the model sees them; reads everything into memory."""
        pairs = [(x.numpy(), y.numpy()) for x, y in self.batches(256)]
        return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])

    def first(self, n: int = 1) -> Batch:
        """The first ``n`` examples (fewer when there are fewer)."""
        xs, ys = zip(*self.batches(n, limit=n), strict=True)
        return torch.cat(xs), torch.cat(ys)


class ArraySplit(Split):
    """Examples held in memory.

    Args:
        inputs: shape ``(n, ...)``. With ``mean`` and ``std`` they are uint8 images ``(n, c, h, w)``
            and a batch is ``(inputs / 255 - mean) / std``; without, they are given as they are.
        targets: shape ``(n, ...)``; integers are classes.
        name: named in errors.
        mean: per channel, or None.
        std: per channel, or None.
        augment: name of an augmentation, or None.
    """

    def __init__(
        self,
        inputs: Array,
        targets: Array,
        *,
        name: str = "data",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: str | None = None,
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.targets = targets
        self.mean = None if mean is None else tuple(float(m) for m in mean)
        self.std = None if std is None else tuple(float(s) for s in std)
        self.augment = augment
        self._check()

    def _check(self) -> None:
        where = self.name
        if len(self.inputs) != len(self.targets):
            raise DataError(
                f"{where}: {len(self.inputs)} inputs but {len(self.targets)} targets; "
                "give one target per input"
            )
        if len(self.inputs) == 0:
            raise DataError(f"{where} is empty; give at least one example")
        if (self.mean is None) != (self.std is None):
            raise DataError(f"{where}: give both mean and std, or neither")
        if self.augment is not None:
            augmentation(self.augment)
            if self.inputs.ndim != 4:
                raise DataError(
                    f"{where}: augmentation {self.augment!r} needs images (n, c, h, w); "
                    f"the inputs have shape {self.inputs.shape}"
                )
        for what, values in (("inputs", self.inputs), ("targets", self.targets)):
            at = _first_not_finite(values)
            if at is not None:
                raise DataError(
                    f"{where}: {what} hold NaN or infinity, first in example {at}; "
                    "clean or drop such examples"
                )
        _check_labels(self.targets, where)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def in_memory(self) -> bool:
        """True: the arrays are here."""
        return True

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The targets, when they are one integer per example."""
        if self.targets.ndim == 1 and np.issubdtype(self.targets.dtype, np.integer):
            return self.targets.astype(np.int64, copy=False)
        return None

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        limit: int | None = None,
        augment: bool | None = None,
    ) -> Iterator[Batch]:
        """Yield ``(inputs, targets)``; see :meth:`Split.batches`."""
        rng = np.random.default_rng(seed)
        change = None
        if self.augment is not None and (shuffle if augment is None else augment):
            change = augmentation(self.augment)
        for index in _index_batches(len(self), batch_size, shuffle, limit, rng):
            x = torch.from_numpy(np.ascontiguousarray(self.inputs[index]))
            if change is not None:
                x = change(x, rng)
            yield self._normalised(x), torch.from_numpy(np.ascontiguousarray(self.targets[index]))

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None or self.std is None:
            return x
        scale = torch.tensor([1 / (255 * s) for s in self.std]).view(-1, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)])
        return x.float().mul_(scale).sub_(shift.view(-1, 1, 1))

    def arrays(self) -> tuple[Array, Array]:
        """All inputs as the model sees them (normalised, never augmented) and all targets."""
        if self.mean is None:
            return self.inputs, self.targets
        out = np.empty(self.inputs.shape, dtype=np.float32)
        for start in range(0, len(self), _CHUNK):
            part = torch.from_numpy(np.ascontiguousarray(self.inputs[start : start + _CHUNK]))
            out[start : start + _CHUNK] = self._normalised(part).numpy()
        return out, self.targets

    def subset(self, n: int, seed: int = 0) -> ArraySplit:
        """At most ``n`` examples, spread over the classes as they are here."""
        return self.take(choose(len(self), min(n, len(self)), seed, self.labels))

    def take(self, index: npt.NDArray[np.int64]) -> ArraySplit:
        """The examples at ``index``."""
        return ArraySplit(
            self.inputs[index],
            self.targets[index],
            name=self.name,
            mean=self.mean,
            std=self.std,
            augment=self.augment,
        )


class DatasetSplit(Split):
    """A map-style ``torch.utils.data.Dataset``, read example by example in this process.

    To decode in parallel, wrap the Dataset in a DataLoader with ``num_workers``.
    """

    def __init__(
        self, dataset: Any, *, name: str = "data", index: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.name = name
        self.dataset = dataset
        self.index = np.arange(len(dataset)) if index is None else index
        if len(self.index) == 0:
            raise DataError(f"{name} is empty; give at least one example")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def in_memory(self) -> bool:
        """False: examples are read from the Dataset."""
        return False

    @property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The Dataset's own ``targets`` or ``labels``, when they are one integer per example."""
        for attribute in ("targets", "labels"):
            values = getattr(self.dataset, attribute, None)
            if values is None:
                continue
            array = np.asarray(values)
            if array.shape == (len(self.dataset),) and np.issubdtype(array.dtype, np.integer):
                return array.astype(np.int64)[self.index]
        return None

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        limit: int | None = None,
        augment: bool | None = None,
    ) -> Iterator[Batch]:
        """Yield ``(inputs, targets)``; see :meth:`Split.batches`."""
        order = _index_batches(len(self), batch_size, shuffle, limit, np.random.default_rng(seed))
        read = (default_collate([self.dataset[int(i)] for i in self.index[part]]) for part in order)
        for batch in seeded_iteration(read, seed):
            yield as_batch(batch, self.name)

    def subset(self, n: int, seed: int = 0) -> DatasetSplit:
        """At most ``n`` examples, by class where the Dataset tells its labels."""
        chosen = choose(len(self), min(n, len(self)), seed, self.labels)
        return DatasetSplit(self.dataset, name=self.name, index=self.index[chosen])


class LoaderSplit(Split):
    """The user's own DataLoader, or any re-iterable of ``(inputs, targets)`` batches, as it is."""

    def __init__(self, loader: Iterable[Any], *, name: str = "data") -> None:
        self.name = name
        self.loader = loader
        self._length: int | None = None
        if next(iter(self.batches(1)), None) is None:
            raise DataError(f"{name} is empty: the loader yields no batch; check its dataset")

    def __len__(self) -> int:
        if self._length is None:
            self._length = _loader_length(self.loader)
        if self._length is None:
            self._length = sum(len(x) for x, _ in self.batches(1))
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if isinstance(self.loader, DataLoader):  # a live worker pool cannot travel
            state["loader"] = loader = object.__new__(type(self.loader))
            loader.__dict__.update(self.loader.__dict__, _iterator=None)
        return state

    @property
    def in_memory(self) -> bool:
        """False: batches are read from the loader."""
        return False

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        limit: int | None = None,
        augment: bool | None = None,
    ) -> Iterator[Batch]:
        """Yield the loader's own batches; only ``seed`` and ``limit`` have an effect."""
        left = float("inf") if limit is None else limit
        generator = getattr(self.loader, "generator", None)
        own = generator if isinstance(generator, torch.Generator) else None
        if left <= 0:
            return
        for batch in seeded_iteration(self.loader, seed, own):
            x, y = as_batch(batch, self.name)
            if len(x) > left:
                x, y = x[: int(left)], y[: int(left)]
            left -= len(x)
            yield x, y
            if left <= 0:
                return

    def subset(self, n: int, seed: int = 0) -> ArraySplit:
        """The first ``n`` examples the loader gives for ``seed``, copied into memory."""
        xs, ys = zip(*self.batches(n, seed=seed, limit=n), strict=True)
        x = torch.cat(xs).numpy()
        return ArraySplit(x, torch.cat(ys).numpy(), name=self.name)


def wrap(value: Any, name: str) -> Split:
    """The split of whatever the user gave: DataLoader, Dataset, ``(inputs, targets)``, or a split.

    Raises:
        DataError: it is none of these, or its content is unusable.
    """
    if isinstance(value, Split):
        split = copy.copy(value)
        split.name = name
        return split
    if isinstance(value, TensorDataset) and len(value.tensors) == 2:
        value = value.tensors
    if isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_array, value)):
        targets = _as_array(value[1], target=True)
        return ArraySplit(_as_array(value[0]), targets, name=name)
    if isinstance(value, DataLoader):
        return LoaderSplit(value, name=name)
    if isinstance(value, IterableDataset):
        raise DataError(
            f"{name} is an IterableDataset ({type(value).__name__}); wrap it in a DataLoader"
        )
    if isinstance(value, Dataset) or _is_map_style(value):
        return DatasetSplit(value, name=name)
    if isinstance(value, Iterator):
        raise DataError(
            f"{name} is a one-shot iterator ({type(value).__name__}); it would be empty the second "
            "time; give a DataLoader, a Dataset, a pair of tensors or a list of batches"
        )
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return LoaderSplit(value, name=name)
    raise DataError(
        f"{name} is a {type(value).__name__}; give a DataLoader, a Dataset or a pair "
        "(inputs, targets) of tensors"
    )


def as_batch(batch: Any, where: str) -> Batch:
    """``batch`` as a checked pair of tensors: float64 becomes float32, small integers int64.

    Raises:
        DataError: it is no pair of tensors, the lengths differ, or it holds NaN or infinity.
    """
    if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(map(_is_array, batch))):
        what = type(batch).__name__
        if isinstance(batch, dict):
            what = f"a dict with keys {sorted(map(str, batch))}"
        elif isinstance(batch, tuple | list):
            what = f"a {what} of {[type(item).__name__ for item in batch]}"
        raise DataError(f"{where}: a batch is {what}; it must be a pair (inputs, targets)")
    x = _tidy(torch.as_tensor(batch[0]))
    y = _tidy(torch.as_tensor(batch[1]), target=True)
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(
            f"{where}: a batch has inputs of shape {tuple(x.shape)} and targets of shape "
            f"{tuple(y.shape)}; the first dimension must be the same number of examples"
        )
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise DataError(f"{where}: a batch of inputs holds NaN or infinity; clean the data")
    if y.is_floating_point() and not bool(torch.isfinite(y).all()):
        raise DataError(f"{where}: a batch of targets holds NaN or infinity; clean the data")
    _check_labels(y.numpy(), where)
    return x, y


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _is_map_style(value: Any) -> bool:
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, tuple | list | str | bytes | dict)
    )


def _tidy(tensor: torch.Tensor, *, target: bool = False) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float64, torch.float16, torch.bfloat16):
        return tensor.float()
    if target and not tensor.is_floating_point():
        return tensor.long()
    return tensor


def _as_array(value: Any, *, target: bool = False) -> Array:
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
        raise DataError(f"an array of {value.dtype} was given; give numbers")
    return _tidy(torch.as_tensor(value), target=target).numpy()


def _index_batches(
    n: int, batch_size: int, shuffle: bool, limit: int | None, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}; it must be at least 1")
    order = rng.permutation(n) if shuffle else np.arange(n)
    order = order[:limit] if limit is not None else order
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        if not (shuffle and len(part) == 1 and start > 0):
            yield part


def _first_not_finite(values: Array) -> int | None:
    if not np.issubdtype(values.dtype, np.floating):
        return None
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK].reshape(len(values[start : start + _CHUNK]), -1)
        bad = ~np.isfinite(part).all(axis=1)
        if bad.any():
            return start + int(np.argmax(bad))
    return None


def _check_labels(targets: Array, where: str) -> None:
    integers = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer)
    if integers and targets.size and int(targets.min()) < 0:
        raise DataError(
            f"{where}: label {int(targets.min())} is negative; labels count from 0, one per class"
        )


def _loader_length(loader: Any) -> int | None:
    """Examples in one pass over a DataLoader, or None when only a pass can tell."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if loader.batch_size is None or not isinstance(loader.sampler, Sized):
        return None
    n = len(loader.sampler)
    return n - n % loader.batch_size if loader.drop_last else n
