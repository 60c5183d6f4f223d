"""Real searches, run once a session and then only read."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import autocompress as ac
from examples import custom_task
from tests.integration.runs import BUDGET, SEED, SmallCNN, trained_cnn, write_fixed_profile


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Equal results need equal thread counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cnn() -> SmallCNN:
    """A user's trained model."""
    return trained_cnn()


@pytest.fixture(scope="session")
def fixed_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a profile that is not of the machine at hand."""
    folder = tmp_path_factory.mktemp("profiles") / "fixed_cpu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        write_fixed_profile(folder)
    return folder


@pytest.fixture(scope="session")
def fixed_run(
    cnn: SmallCNN, fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> ac.SearchResult:
    """The user's model, for a device that is not at hand."""
    return ac.search(
        cnn, "digits", device=fixed_profile, budget=BUDGET, seed=SEED, progress="none",
        run_dir=tmp_path_factory.mktemp("runs") / "fixed",
    )  # fmt: skip


@pytest.fixture(scope="session")
def local_run(cnn: SmallCNN, tmp_path_factory: pytest.TempPathFactory) -> ac.SearchResult:
    """The user's model, for this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return ac.search(
            cnn, "digits", budget=BUDGET, seed=SEED, progress="none",
            techniques=["pruning", "quantization"],
            run_dir=tmp_path_factory.mktemp("runs") / "local",
        )  # fmt: skip


@pytest.fixture(scope="session")
def openvino_run(cnn: SmallCNN, tmp_path_factory: pytest.TempPathFactory) -> ac.SearchResult:
    """The user's model, for this machine with another runtime."""
    if find_spec("openvino") is None:
        pytest.skip("needs the extra openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return ac.search(
            cnn, "digits", device="local:openvino", seed=SEED, progress="none",
            budget=ac.Budget(trials=4, train_steps=40), techniques=["pruning", "quantization"],
            run_dir=tmp_path_factory.mktemp("runs") / "openvino",
        )  # fmt: skip


@pytest.fixture(scope="session")
def recipe_run(
    cnn: SmallCNN, fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> ac.SearchResult:
    """How candidates are trained back is searched, too."""
    return ac.search(
        cnn, "digits", device=fixed_profile, seed=SEED, progress="none",
        budget=ac.Budget(trials=8, train_steps=120),
        techniques=["pruning", "quantization", "distillation"],
        run_dir=tmp_path_factory.mktemp("runs") / "recipe",
    )  # fmt: skip


@pytest.fixture(scope="session")
def space_run(fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> ac.SearchResult:
    """A named space."""
    return ac.search(
        "tiny_cnn", "digits", device=fixed_profile, seed=SEED, progress="none",
        budget=ac.Budget(trials=BUDGET.trials, train_steps=30),
        run_dir=tmp_path_factory.mktemp("runs") / "space",
    )  # fmt: skip


def ink_data() -> ac.Data:
    """The regression task of the examples."""
    digits = ac.Data.load("digits")
    images = {name: torch.from_numpy(split.arrays()[0]) for name, split in digits.splits.items()}
    pairs = {name: (x, custom_task.targets(x)) for name, x in images.items()}
    return ac.Data(pairs["train"], pairs["val"], pairs["test"], name="ink")


def ink_task() -> ac.Task:
    """Its loss and metric; smaller is better."""
    return ac.Task(
        loss=custom_task.loss, metric=custom_task.mean_absolute_error, higher_is_better=False,
        name="ink",
    )  # fmt: skip


@pytest.fixture(scope="session")
def ink_run(fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> ac.SearchResult:
    """A regression with a metric of its own, and a bound on it."""
    data, task = ink_data(), ink_task()
    torch.manual_seed(0)
    model = custom_task.regressor()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for x, y in data.train.batches(64, shuffle=True, seed=0):
        optimizer.zero_grad()
        task.loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return ac.search(
        model.eval(), data, task=task, device=fixed_profile, budget=BUDGET, seed=SEED,
        constraints={"accuracy": 0.15}, progress="none",
        run_dir=tmp_path_factory.mktemp("runs") / "ink",
    )  # fmt: skip
