from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import DataError
from autocompress.evaluation.augment import crop_flip
from autocompress.evaluation.seeding import choose
from autocompress.evaluation.splits import ArraySplit


def images(n: int = 20, **options: Any) -> ArraySplit:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8)).astype(np.uint8)
    return ArraySplit(pixels, np.arange(n) % 4, **options)


def test_normalisation_is_what_torchvision_does() -> None:
    from torchvision.transforms.functional import normalize

    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    split = images(mean=mean, std=std)
    expected = normalize(torch.from_numpy(split.inputs).float() / 255, list(mean), list(std))

    got = torch.cat([x for x, _ in split.batches(7)])
    assert torch.allclose(got, expected, atol=1e-6)
    assert np.array_equal(split.arrays()[0], got.numpy())


def test_shuffling_follows_the_seed_and_loses_nothing() -> None:
    split = images(21)
    orders = [
        torch.cat([x for x, _ in split.batches(6, shuffle=True, seed=s)]).flatten(1).sum(1)
        for s in (1, 1, 2)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders[0].sort().values, orders[2].sort().values)
    assert len(orders[0]) == 21


def test_a_last_batch_of_one_is_left_out_only_when_shuffling() -> None:
    split = images(9)
    assert [len(x) for x, _ in split.batches(4, shuffle=True)] == [4, 4]
    assert [len(x) for x, _ in split.batches(4)] == [4, 4, 1]
    assert [len(x) for x, _ in images(1).batches(4, shuffle=True)] == [1]


def test_augmentation_applies_when_shuffling_unless_told() -> None:
    split = images(16, augment="crop_flip")
    plain = torch.from_numpy(split.inputs)
    assert torch.equal(next(split.batches(16))[0], plain)
    changed = next(split.batches(16, augment=True))[0]
    assert changed.shape == plain.shape
    assert not torch.equal(changed, plain)
    kept = next(split.batches(16, shuffle=True, augment=False))[0]
    assert sorted(kept.flatten(1).sum(1).tolist()) == sorted(plain.flatten(1).sum(1).tolist())
    assert np.array_equal(split.arrays()[0], split.inputs)


def test_crop_flip_gives_crops_of_the_padded_image_and_of_its_mirror() -> None:
    batch = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(64, 1, 1, 1)
    padded = torch.nn.functional.pad(batch[0, 0], (4, 4, 4, 4))
    crops = {
        crop.contiguous().numpy().tobytes()
        for top in range(9)
        for left in range(9)
        for crop in [padded[top : top + 8, left : left + 8]]
    }
    mirrored = {
        np.ascontiguousarray(np.frombuffer(c, np.uint8).reshape(8, 8)[:, ::-1]).tobytes()
        for c in crops
    }
    out = crop_flip(batch, np.random.default_rng(0))

    seen = [image[0].numpy().tobytes() for image in out]
    assert all(image in crops | mirrored for image in seen)
    assert len(set(seen)) > 32
    assert 10 < sum(image in mirrored - crops for image in seen) < 54


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_choice_by_class_is_proportional(labels: list[int], n: int, seed: int) -> None:
    n = min(n, len(labels))
    y = np.array(labels)
    chosen = choose(len(y), n, seed, y)

    assert len(chosen) == len(set(chosen.tolist())) == n
    assert np.array_equal(chosen, np.sort(chosen))
    for c in set(labels):
        share = n * float((y == c).mean())
        assert int(share) <= int((y[chosen] == c).sum()) <= int(share) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "both mean and std"),
        ({"augment": "spin"}, "unknown augmentation 'spin'; use one of: crop_flip"),
    ],
    ids=["mean alone", "unknown augmentation"],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        images(**options)


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(DataError, match="batch_size is 0"):
        next(images().batches(0))
