from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from autocompress.errors import DataError
from autocompress.evaluation.data import Data
from autocompress.evaluation.data_sources import SOURCES
from autocompress.evaluation.data_sources.parquet import channel_statistics
from autocompress.evaluation.splits import ArraySplit


def png(seed: int, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> bytes:
    channels = (3,) if mode == "RGB" else ()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], *channels))
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()


def write_parquet(
    folder: Path, stem: str, n: int = 20, *, struct_form: bool = False, mode: str = "RGB"
) -> Path:
    images: list[object] = [png(i, mode=mode) for i in range(n)]
    if struct_form:
        images = [{"bytes": image, "path": None} for image in images]
    table = pa.table({"image": images, "label": [i % 4 for i in range(n)]})
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / f"{stem}.parquet")
    return folder


def write_idx(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = head + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, *, suffix: str = ".gz", n: int = 30) -> Path:
    for prefix in ("train", "t10k"):
        images = np.random.default_rng(0).integers(0, 256, (n, 5, 5)).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        labels = (np.arange(n) % 3).astype(np.uint8)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    return folder


def write_images(folder: Path, *, sizes: tuple[tuple[int, int], ...] = ((6, 6),)) -> Path:
    for split, n in (("train", 8), ("val", 3), ("test", 4)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                size = sizes[i % len(sizes)]
                (folder / split / name / f"{i}.png").write_bytes(png(i, size))
    return folder


# --- digits


def test_digits_are_split_by_class_and_always_alike() -> None:
    first, second = Data.load("digits"), Data.load("digits")

    sizes = {name: len(split) for name, split in first.splits.items()}
    assert sizes == {"train": 1079, "val": 359, "test": 359, "calibration": 256}
    assert (first.input_shape, first.num_classes, first.source) == ((1, 8, 8), 10, "digits")
    assert first.notes == []
    x, _ = first.train.arrays()
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (0.0, 1.0)
    for name in first.splits:
        a, b = first.splits[name].arrays(), second.splits[name].arrays()
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])


def test_digits_splits_share_no_example() -> None:
    data = Data.load("digits")
    rows = [{x.tobytes() for x in s.arrays()[0]} for s in (data.train, data.val, data.test)]
    together = np.concatenate([s.arrays()[0] for s in (data.train, data.val, data.test)])
    assert len(together) == 1797
    assert sum(map(len, rows)) == len({x.tobytes() for x in together})


# --- parquet


@pytest.mark.parametrize("struct_form", [False, True], ids=["bytes", "struct"])
def test_parquet_images_are_decoded_and_normalised(tmp_path: Path, struct_form: bool) -> None:
    folder = write_parquet(tmp_path / "flowers", "train", 20, struct_form=struct_form)
    write_parquet(folder, "dev", 8, struct_form=struct_form)
    write_parquet(folder, "test", 8, struct_form=struct_form)

    data = Data.load(f"parquet:{folder}")

    assert (data.name, data.input_shape, data.num_classes) == ("flowers", (3, 6, 6), 4)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 8, 8)
    x, _ = data.train.arrays()
    assert np.allclose(x.mean((0, 2, 3)), 0, atol=1e-3)
    assert np.allclose(x.std((0, 2, 3)), 1, atol=1e-3)
    assert isinstance(data.train, ArraySplit)
    with Image.open(io.BytesIO(png(3))) as image:
        assert np.array_equal(data.train.inputs[3].transpose(1, 2, 0), np.asarray(image))


def test_grey_parquet_images_have_one_channel(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path, "train", mode="L")
    assert Data.load(f"parquet:{folder}").input_shape == (1, 6, 6)


def test_decoded_images_are_cached_by_content_outside_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    folder = write_parquet(tmp_path / "data", "train")
    first = Data.load(f"parquet:{folder}").train.arrays()[0]
    (cached,) = (tmp_path / "cache" / "data").iterdir()
    assert [p.name for p in folder.iterdir()] == ["train.parquet"]

    from autocompress.evaluation.data_sources import parquet

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "_decode", lambda path: pytest.fail("decoded twice"))
        assert np.array_equal(Data.load(f"parquet:{folder}").train.arrays()[0], first)

    cached.write_bytes(cached.read_bytes()[:100])
    assert np.array_equal(Data.load(f"parquet:{folder}").train.arrays()[0], first)

    write_parquet(folder, "train", 12)
    assert len(Data.load(f"parquet:{folder}").train) == 11


def test_an_unwritable_cache_is_noted_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "file"))
    data = Data.load(f"parquet:{write_parquet(tmp_path / 'data', 'train')}")
    assert any("were not cached" in note for note in data.notes)


def test_channel_statistics_are_numpys() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 2, 4, 4)).astype(np.uint8)
    mean, std = channel_statistics(pixels)
    assert np.allclose(mean, (pixels / 255).mean((0, 2, 3)), atol=1e-4)
    assert np.allclose(std, (pixels / 255).std((0, 2, 3)), atol=1e-4)


# --- mnist, images


@pytest.mark.parametrize("suffix", [".gz", ""], ids=["compressed", "plain"])
@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw"], ids=["here", "raw", "torchvision"])
def test_mnist_is_read_where_it_lies(tmp_path: Path, suffix: str, inside: str) -> None:
    write_mnist(tmp_path / inside, suffix=suffix)
    data = Data.load(f"mnist:{tmp_path}")
    assert (data.input_shape, data.num_classes) == ((1, 5, 5), 10)
    assert (len(data.train), len(data.val), len(data.test)) == (27, 3, 30)


def test_image_folders(tmp_path: Path) -> None:
    data = Data.load(f"images:{write_images(tmp_path / 'pets')}")
    assert (data.name, data.classes, data.num_classes) == ("pets", ("cat", "dog"), 2)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 6, 8)
    assert data.train.arrays()[1].tolist() == [0] * 8 + [1] * 8


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    folder = write_images(tmp_path, sizes=((6, 6), (9, 7)))
    with pytest.raises(DataError, match="images:DIR@SIZE"):
        Data.load(f"images:{folder}")
    assert Data.load(f"images:{folder}@8").input_shape == (3, 8, 8)


# --- what goes wrong


def bad_parquet(content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "train.parquet").write_bytes(content)
        return f"parquet:{folder}"

    return make


def table(**columns: list[object]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        pq.write_table(pa.table(columns), folder / "train.parquet")
        return f"parquet:{folder}"

    return make


def cut_mnist(folder: Path) -> str:
    write_mnist(folder)
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:200])
    return f"mnist:{folder}"


def short_mnist(folder: Path) -> str:
    write_mnist(folder, suffix="")
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    return f"mnist:{folder}"


def unknown_class(folder: Path) -> str:
    write_images(folder)
    (folder / "val" / "bird").mkdir()
    return f"images:{folder}"


BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "unknown source": (
        lambda p: "imagenet",
        "unknown data 'imagenet'; use one of: digits, cifar10",
    ),
    "digits with folder": (lambda p: "digits:here", "takes no folder"),
    "no folder given": (lambda p: "cifar10", "no folder given"),
    "folder absent": (
        lambda p: f"cifar10:{p}/no",
        "does not exist; looked for a folder with train",
    ),
    "folder is a file": (lambda p: f"mnist:{__file__}", "is no folder"),
    "no train file": (lambda p: f"parquet:{p}", "holds no train.parquet .it holds nothing."),
    "no parquet": (bad_parquet(b"PAR1 nonsense"), "no readable parquet file"),
    "truncated parquet": (bad_parquet(b""), "no readable parquet file"),
    "text columns": (table(text=["a"], label=[1]), "columns text, label; it needs image"),
    "no image": (table(image=[b"abc"], label=[1]), "the image in row 0 is no readable image"),
    "no bytes": (table(image=[1], label=[1]), "column image holds int"),
    "label text": (table(image=[b"a"], label=["x"]), "column label is string"),
    "label missing": (table(image=[b"a", b"b"], label=[1, None]), "rows without image or label"),
    "not cifar": (
        lambda p: f"cifar10:{write_parquet(p / 'd', 'train')}",
        "is not CIFAR-10: .*write parquet:",
    ),
    "no mnist": (lambda p: f"mnist:{p}", "holds no train-images-idx3-ubyte"),
    "cut mnist": (cut_mnist, "no readable IDX file"),
    "short mnist": (short_mnist, "should hold 750 bytes of data, it holds 749"),
    "no train folder": (lambda p: f"images:{p}", "holds no folder train"),
    "unknown class": (unknown_class, "classes that train/ does not: bird"),
    "image size": (lambda p: f"images:{p}@2", "image size is 2"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_places_say_what_was_looked_for(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(DataError, match=message):
        Data.load(make(tmp_path))


def test_every_source_says_how_it_is_asked_for() -> None:
    assert all(source.usage.startswith(name) for name, source in SOURCES.items())


# --- the real thing


@pytest.mark.shared_data
def test_real_cifar10(shared_data: Path) -> None:
    data = Data.load(f"cifar10:{shared_data / 'cifar10'}")

    assert (len(data.train), len(data.val), len(data.test)) == (45_000, 5_000, 10_000)
    assert (data.input_shape, data.num_classes, len(data.classes)) == ((3, 32, 32), 10, 10)
    assert np.bincount(data.val.arrays()[1]).tolist() == [500] * 10
    x, _ = data.test.first(2000)
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=0.1)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(3), atol=0.1)
    augmented = next(data.train.batches(64, shuffle=True))[0]
    assert augmented.shape == (64, 3, 32, 32)
    assert len(cloudpickle.dumps(data)) < 250e6


@pytest.mark.shared_data
def test_real_mnist(shared_data: Path) -> None:
    data = Data.load(f"mnist:{shared_data / 'mnist'}")
    assert (len(data.train), len(data.val), len(data.test)) == (54_000, 6_000, 10_000)
    x, _ = data.train.arrays()
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01
