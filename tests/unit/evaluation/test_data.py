from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import autocompress as ac
from autocompress.errors import DataError
from autocompress.evaluation.data import CALIBRATION_SIZE, Data
from autocompress.evaluation.splits import ArraySplit, DatasetSplit, LoaderSplit

Pair = tuple[torch.Tensor, torch.Tensor]


def pair(n: int = 40, classes: int = 4, seed: int = 0) -> Pair:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 4, 4, generator=generator), torch.arange(n) % classes


class Squares(Dataset[tuple[torch.Tensor, int]]):
    """A map-style Dataset that tells its labels."""

    def __init__(self, n: int = 40) -> None:
        self.x, y = pair(n)
        self.targets = y.tolist()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index], self.targets[index]


class Noisy(Squares):
    """A Dataset that augments with torch's own random numbers."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index] + torch.randn(3, 4, 4), self.targets[index]


class Stream(IterableDataset[Pair]):
    def __iter__(self) -> Iterator[Pair]:
        yield pair(1)


def loader(n: int = 40, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*pair(n)), batch_size=8, **options)


def all_of(split: Any, **options: Any) -> Pair:
    xs, ys = zip(*split.batches(8, **options), strict=True)
    return torch.cat(xs), torch.cat(ys)


FORMS: dict[str, tuple[Callable[[], Any], type]] = {
    "tensors": (pair, ArraySplit),
    "arrays": (lambda: tuple(t.numpy() for t in pair()), ArraySplit),
    "list-pair": (lambda: list(pair()), ArraySplit),
    "tensor-dataset": (lambda: TensorDataset(*pair()), ArraySplit),
    "dataset": (Squares, DatasetSplit),
    "loader": (loader, LoaderSplit),
    "list-of-batches": (lambda: list(loader()), LoaderSplit),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_has_one_interface(form: str) -> None:
    make, kind = FORMS[form]
    data = Data(make(), make(), make())

    assert type(data.train) is kind
    assert len(data.train) == 40
    x, y = all_of(data.train)
    expected_x, expected_y = pair()
    assert torch.equal(x, expected_x)
    assert torch.equal(y, expected_y)
    assert y.dtype == torch.int64
    assert (data.input_shape, data.target_shape, data.num_classes) == ((3, 4, 4), (), 4)
    inputs, targets = data.test.arrays()
    assert np.array_equal(inputs, expected_x.numpy())
    assert np.array_equal(targets, expected_y.numpy())
    assert len(all_of(data.train, limit=11)[0]) == 11
    assert len(data.train.subset(10, 1)) == 10
    assert len(data.calibration) == min(40, CALIBRATION_SIZE)


@pytest.mark.parametrize("form", FORMS)
def test_data_travels_to_worker_processes(form: str) -> None:
    make, _ = FORMS[form]
    data = Data(make(), make(), make())

    copy = cloudpickle.loads(cloudpickle.dumps(data))

    assert torch.equal(all_of(copy.train)[0], all_of(data.train)[0])
    assert copy.describe() == data.describe()


def test_a_used_loader_with_workers_still_travels() -> None:
    workers = loader(num_workers=1, persistent_workers=True)
    data = Data(workers, pair())
    all_of(data.train)
    copy = cloudpickle.loads(cloudpickle.dumps(data))
    assert len(copy.train) == 40


def test_describe_is_json_and_counts_classes() -> None:
    described = json.loads(json.dumps(Data(pair(), pair(), pair(), name="mine").describe()))

    assert described["name"] == "mine"
    assert described["splits"]["train"]["class_counts"] == [10, 10, 10, 10]
    assert described["splits"]["test"]["examples"] == 40
    assert described["notes"] == []


def test_validation_is_held_out_by_class_and_always_the_same() -> None:
    first, second = Data(pair(100)), Data(pair(100))

    assert (len(first.train), len(first.val)) == (90, 10)
    assert torch.equal(all_of(first.val)[0], all_of(second.val)[0])
    assert sorted(np.bincount(first.val.arrays()[1])) == [2, 2, 3, 3]
    everything = torch.cat([all_of(first.train)[0], all_of(first.val)[0]]).flatten(1).sum(1)
    assert torch.equal(everything.sort().values, pair(100)[0].flatten(1).sum(1).sort().values)
    assert any("held out" in note for note in first.notes)


def test_a_dataset_is_divided_too() -> None:
    data = Data(Squares(40))
    assert isinstance(data.val, DatasetSplit)
    assert (len(data.train), len(data.val)) == (36, 4)
    assert not set(data.train.index) & set(data.val.index)  # type: ignore[attr-defined]


def test_missing_test_examples_fall_back_and_say_so() -> None:
    data = Data(pair(), pair(8))
    assert data.test is data.val
    assert any("optimistic" in note for note in data.notes)


def test_num_classes_counts_labels_of_all_splits() -> None:
    assert Data(pair(classes=3), pair(classes=5), pair(classes=4)).num_classes == 5
    assert Data(pair(classes=3), num_classes=7).num_classes == 7
    assert Data((torch.randn(10, 2), torch.randn(10, 1))).num_classes is None


def test_doubles_become_floats_and_small_integers_long() -> None:
    x, y = pair()
    data = Data((x.double().numpy(), y.to(torch.int16).numpy()))
    batch = next(data.train.batches(2))
    assert (batch[0].dtype, batch[1].dtype) == (torch.float32, torch.int64)


def test_integer_inputs_stay_as_they_are() -> None:
    tokens = torch.randint(0, 100, (20, 7), dtype=torch.int32)
    assert next(Data((tokens, torch.arange(20) % 2)).train.batches(2))[0].dtype == torch.int32


def test_the_users_split_is_not_changed() -> None:
    mine = ArraySplit(np.zeros((20, 2), np.float32), np.arange(20) % 2, name="mine")
    data = Data(mine)
    assert mine.name == "mine"
    assert len(mine) == 20
    assert data.train is not mine


def test_of_takes_data_and_names() -> None:
    data = Data(pair())
    assert ac.Data.of(data) is data
    assert ac.Data.of("digits").name == "digits"
    with pytest.raises(DataError, match="data is a int"):
        ac.Data.of(3)  # type: ignore[arg-type]


def one_shot() -> Iterator[Pair]:
    yield pair()


NAN = (torch.full((4, 2), float("nan")), torch.zeros(4, dtype=torch.int64))
BAD: dict[str, tuple[Callable[[], Data], str]] = {
    "no train": (lambda: Data(), "train is missing"),
    "empty tensors": (lambda: Data(pair(0)), "train is empty"),
    "empty loader": (lambda: Data(loader(0), pair()), "train is empty: the loader yields no batch"),
    "empty list": (lambda: Data([], pair()), "train is empty"),
    "empty val": (lambda: Data(pair(), pair(0)), "val is empty"),
    "lengths": (lambda: Data((pair()[0], pair(39)[1])), "40 inputs but 39 targets"),
    "nan tensors": (lambda: Data(NAN), "NaN or infinity, first in example 0"),
    "nan loader": (lambda: Data([NAN], pair()), "NaN or infinity"),
    "nan targets": (
        lambda: Data((torch.zeros(4, 2), torch.tensor([0.0, 1.0, float("inf"), 0.0]))),
        "targets hold NaN or infinity, first in example 2",
    ),
    "negative label": (lambda: Data((torch.zeros(4, 2), torch.arange(4) - 1)), "label -1"),
    "label too large": (lambda: Data(pair(classes=5), num_classes=4), "train holds label 4"),
    "loader without val": (lambda: Data(loader()), "val is missing and train is a DataLoader"),
    "generator": (lambda: Data(one_shot(), pair()), "one-shot iterator"),
    "iterable dataset": (lambda: Data(Stream(), pair()), "wrap it in a DataLoader"),
    "dict batches": (lambda: Data([{"image": 1, "label": 2}], pair()), "keys .'image', 'label'."),
    "one tensor": (lambda: Data(pair()[0], pair()), "(a batch is|train is a) .*Tensor"),
    "text": (lambda: Data("digits", pair()), "train is a str"),
    "shapes differ": (
        lambda: Data(pair(), (torch.zeros(4, 3, 5, 5), torch.arange(4))),
        r"val has inputs \(3, 5, 5\) float32",
    ),
    "strings": (lambda: Data((np.array(["a", "b"]), np.array([0, 1]))), "give numbers"),
    "augment loader": (lambda: Data(loader(), pair(), augment="crop_flip"), "held in memory"),
    "augment unknown": (lambda: Data(pair(), augment="mixup"), "unknown augmentation 'mixup'"),
    "one example": (lambda: Data(pair(1)), "at least two"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_data_is_refused_with_one_clear_message(case: str) -> None:
    make, message = BAD[case]
    with pytest.raises(DataError, match=message):
        make()


def test_a_bad_batch_later_in_a_loader_is_found_when_reached() -> None:
    data = Data([pair(4), NAN_IMAGES], pair(), calibration=pair())
    with pytest.raises(DataError, match="train: a batch of inputs holds NaN"):
        all_of(data.train)


NAN_IMAGES = (torch.full((4, 3, 4, 4), float("nan")), torch.zeros(4, dtype=torch.int64))


def test_torch_randomness_of_the_users_dataset_follows_the_seed() -> None:
    data = Data(Noisy(), pair())
    torch.manual_seed(1)
    first = all_of(data.train, shuffle=True, seed=5)
    state = torch.get_rng_state()
    again = all_of(data.train, shuffle=True, seed=5)
    other = all_of(data.train, shuffle=True, seed=6)

    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("own", [False, True], ids=["global generator", "own generator"])
def test_a_shuffling_loader_follows_the_seed(own: bool) -> None:
    generator = torch.Generator().manual_seed(3) if own else None
    data = Data(loader(shuffle=True, generator=generator), pair())

    assert torch.equal(all_of(data.train, seed=1)[1], all_of(data.train, seed=1)[1])
    assert not torch.equal(all_of(data.train, seed=1)[0], all_of(data.train, seed=2)[0])


def test_the_callers_random_numbers_are_its_own_between_batches() -> None:
    data = Data(Noisy(), pair())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    drawn = [torch.rand(1) for _, _ in data.train.batches(8, limit=24)]
    assert torch.equal(torch.cat(drawn), expected)
    torch.manual_seed(7)
    for _ in data.train.batches(8):
        assert torch.equal(torch.rand(1), expected[:1])
        break
    assert torch.equal(torch.rand(1), expected[1:2])


def test_loader_length_counts_what_it_yields() -> None:
    assert len(Data(loader(20, drop_last=True), pair()).train) == 16
    assert len(Data(list(loader(20)), pair()).train) == 20


def test_half_of_the_test_examples_become_validation_examples() -> None:
    """By class, without overlap, and all training examples stay."""
    x, y = pair(40, seed=3)
    data = Data(pair(30), "test", (x, y))
    assert (len(data.train), len(data.val), len(data.test)) == (30, 20, 20)
    parts = [torch.cat([b[0] for b in s.batches(8)]) for s in (data.val, data.test)]
    assert len({tuple(row.flatten().tolist()) for row in torch.cat(parts)}) == 40
    assert np.bincount(data.val.labels).tolist() == [5, 5, 5, 5]  # type: ignore[arg-type]
    assert any("20 of the 40 test examples became validation examples" in n for n in data.notes)


def test_half_of_a_named_sources_test_examples() -> None:
    whole, halves = Data.load("digits"), Data.load("digits?val=test")
    assert halves.source == "digits?val=test"
    assert len(halves.val) + len(halves.test) == len(whole.test)
    assert len(halves.train) == len(whole.train)


@pytest.mark.parametrize(
    ("val", "test", "words"),
    [
        ("train", pair(), "val is 'train'; give validation examples, or 'test' together with test"),
        ("test", None, "val is 'test'; give validation examples, or 'test' together with test="),
        ("test", DataLoader(TensorDataset(*pair())), "divides the test examples: give at least"),
        ("test", pair(1), "divides the test examples: give at least two"),
    ],
)
def test_halves_that_cannot_be(val: str, test: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Data(pair(), val, test)
