"""What is wrong with a request, said in one clear message, in Python and on the command line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autocompress as ac
from autocompress.cli import main
from autocompress.cli.models import load_model
from autocompress.errors import (
    AutocompressError,
    DataError,
    InfeasibleError,
    RequestError,
    StorageError,
)
from autocompress.hardware import HardwareProfile
from tests.integration.bad_models import small
from tests.integration.runs import BUDGET, ROOT, SEED, SmallCNN

#: No network takes less than a nanosecond.
IMPOSSIBLE = {"latency_ms": 1e-7}
SECONDS = 4.0
MODELS = ROOT / "tests" / "integration" / "bad_models.py"


@dataclass(frozen=True)
class Case:
    """A request that is wrong in one place.

    Attributes:
        words: a pattern of what the message must say: what, which value, what to do.
        code: the exit code.
        model: a function of bad_models.py, instead of the space.
        space: a search space.
        data: where the data come from.
        device: under the folder of devices, or a name.
        run: under the folder of runs.
        options: the other arguments.
    """

    words: str
    code: int = 2
    model: str = ""
    space: str = "tiny_cnn"
    data: str = "digits"
    device: str = "fixed_cpu"
    run: str = "new"
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "space": Case(r"unknown search space 'huge_cnn'; use one of .*tiny_cnn", space="huge_cnn"),
    "device": Case(r"unknown device 'toaster'; use one of .*local, or the path", device="toaster"),
    "objective": Case(
        r"unknown objective 'speed'; use one of accuracy, ",
        options={"objectives": ["accuracy", "speed"]},
    ),
    "one-objective": Case(r"use two to four", options={"objectives": ["accuracy"]}),
    "constraint": Case(
        r"unknown constraint 'speed'; use one of accuracy, ", options={"constraints": {"speed": 1}}
    ),
    "constraint-without-price": Case(
        r"energy_mj cannot be searched for: the profile of \w+ has no energy model; use",
        options={"constraints": {"energy_mj": 1.0}},
    ),
    "strategy": Case(
        r"unknown strategy 'magic'; use one of auto, nsga2, random, tpe$",
        options={"strategy": "magic"},
    ),
    "technique": Case(
        r"unknown technique 'magic'; use some of .*pruning", options={"techniques": ["magic"]}
    ),
    "executor": Case(
        r"unknown executor 'cloud'; this version has local", options={"executor": "cloud"}
    ),
    "budget": Case(r"budget is 'soon'; give seconds or a text", options={"budget": "soon"}),
    "data": Case(r"unknown data 'imagenet'; use one of: digits, ", data="imagenet"),
    "data-folder": Case(r"/nowhere does not exist; looked for", data="images:/nowhere"),
    "data-empty": Case(r"empty holds no folder train; looked for", data="images:{devices}/empty"),
    "flipped-bytes": Case(
        r"flipped/latency\.csv is not the file its profile was written with .*; restore it",
        code=4,
        device="flipped",
    ),
    "cut-profile": Case(
        r"cannot read .*cut/profile\.toml: .*; restore it, or measure the device again",
        code=4,
        device="cut",
    ),
    "no-table": Case(
        r"cannot read the latency table .*untabled/latency\.csv.*; restore it",
        code=4,
        device="untabled",
    ),
    "no-profile": Case(r"empty holds no profile\.toml; give the", code=4, device="empty"),
    "run-dir-under-a-file": Case(
        r"file/run cannot be made .*; give another run_dir", code=5, run="file/run"
    ),
    "run-dir-is-a-file": Case(r"file cannot be made .*; give another run_dir", code=5, run="file"),
    "run-dir-read-only": Case(
        r"/proc/run cannot be made .*; give another run_dir", code=5, run="/proc/run"
    ),
    "another-seed": Case(
        r"theirs holds a run with seed = 3, now asked with 4; use another run_dir",
        model="small",
        run="theirs",
        options={"seed": 4, "constraints": IMPOSSIBLE},
    ),
    "another-device": Case(
        r"theirs holds a run for device 'fixed_cpu', now asked for 'other_cpu'; use another",
        model="small",
        run="theirs",
        device="other_cpu",
        options={"constraints": IMPOSSIBLE},
    ),
    "another-model": Case(
        r"theirs holds a run (of other weights or other data|with \w+ = .*); use another run_dir",
        run="theirs",
        options={"constraints": IMPOSSIBLE},
    ),
    "another-bound": Case(
        r"theirs holds a run with constraints = .* now asked with \{\}; use another run_dir",
        model="small",
        run="theirs",
    ),
    "wrong-channels": Case(
        r"does not run on its example inputs of shapes \[\(2, 1, 8, 8\)\]: File .*runs\.py.*"
        r"`x = self\.stem\(x\)`.*3 channels.*Give data of the shape that the model expects",
        model="colour",
    ),
    "wrong-classes": Case(
        r"the data holds label 9, but the model gives only 9 classes", model="nine_classes"
    ),
    "nan-weights": Case(
        r"the model's outputs .* hold NaN or infinity; check its weights", model="nan_weights"
    ),
    "double-precision": Case(
        r"stem\.0\.weight of the model is torch\.float64; .*call model\.float\(\) first$",
        model="double",
    ),
    "no-layers": Case(
        r"nothing to compress in 'Flat': it has no convolution and no linear layer$", model="flat"
    ),
    "control-flow": Case(
        r"cannot be captured: File .*bad_models\.py\", line \d+, in forward: "
        r"`if x\.mean\(\) < 0\.1:`.*replace it by torch\.where",
        model="branching",
    ),
    "two-outputs": Case(r"the model returns a tuple; .*picks the output to keep", model="pair"),
    "infeasible": Case(
        r"no candidate meets latency_ms <= 1e-07\. Nearest: latency_ms 0\.\d+; .*relax latency_ms "
        r"to 0\.\d+$",
        code=3,
        model="small",
        options={"constraints": IMPOSSIBLE},
    ),
    "infeasible-accuracy": Case(
        r"none of the \d verified models meets accuracy_drop <= -0\.9\. Nearest: accuracy_drop "
        r".*; .*relax accuracy_drop to -?0\.?\d*, or give a larger budget",
        code=3,
        model="small",
        options={"constraints": {"accuracy_drop": -0.9}},
    ),
}


@pytest.fixture(scope="session")
def places(fixed_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Broken profiles, and a run of somebody else's."""
    devices, runs = tmp_path_factory.mktemp("devices"), tmp_path_factory.mktemp("runs")
    for name in ("fixed_cpu", "flipped", "cut", "untabled", "other_cpu"):
        shutil.copytree(fixed_profile, devices / name)
    table = devices / "flipped" / "latency.csv"
    content = bytearray(table.read_bytes())
    content[content.rindex(b",search") + 2] ^= 1  # still a name: only the hash tells
    table.write_bytes(content)
    profile = devices / "cut" / "profile.toml"
    profile.write_text(profile.read_text()[:300])
    (devices / "untabled" / "latency.csv").unlink()
    replace(HardwareProfile.load(fixed_profile), id="other_cpu").save(devices / "other_cpu")
    (devices / "empty").mkdir()
    (runs / "file").write_text("this is no folder")
    with pytest.raises(InfeasibleError):
        ac.search(
            small(), "digits", device=fixed_profile, budget=SECONDS, seed=SEED, progress="none",
            constraints=IMPOSSIBLE, run_dir=runs / "theirs",
        )  # fmt: skip
    return {"devices": devices, "runs": runs}


def arguments(case: Case, places: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    """What Python and the command line are given alike."""
    device = places["devices"] / case.device
    run = tmp_path / "run" if case.run == "new" else places["runs"] / case.run
    known = {"budget": SECONDS, "seed": SEED, **case.options}
    return {
        "data": case.data.format(devices=places["devices"]),
        "device": device if device.exists() else case.device,
        "run_dir": run,
        **known,
    }


@pytest.mark.parametrize("name", CASES)
def test_in_python(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    case = CASES[name]
    given = arguments(case, places, tmp_path)
    model = load_model(f"{MODELS}:{case.model}") if case.model else case.space
    with pytest.raises(AutocompressError, match=case.words) as caught:
        ac.search(model, given.pop("data"), **given, progress="none")
    assert caught.value.exit_code == case.code


@pytest.mark.parametrize("name", CASES)
def test_on_the_command_line(
    name: str, places: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    given = arguments(case, places, tmp_path)
    model = ["--model", f"{MODELS}:{case.model}"] if case.model else ["--space", case.space]
    words = [*model, "--quiet"]
    for option, value in given.items():
        if option == "constraints":
            words += [w for k, v in value.items() for w in ("--constraint", f"{k}={v}")]
        else:
            text = ",".join(value) if isinstance(value, list) else str(value)
            words += [f"--{option.replace('_', '-')}", text]
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["search", *words])
    out, err = capfd.readouterr()
    assert ended.value.code == case.code, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    assert re.search(case.words, err.strip())


def test_advice_that_helps(fixed_profile: Path, places: dict[str, Path], tmp_path: Path) -> None:
    (refused,) = [
        decision["sentence"]
        for decision in ac.SearchResult(places["runs"] / "theirs").view.decisions
        if decision["decision"] == "failed"
    ]
    advised = float(refused.rpartition(" to ")[2])
    result = ac.search(
        small(), "digits", device=fixed_profile, budget=ac.Budget(trials=1, train_steps=4),
        constraints={"latency_ms": advised}, run_dir=tmp_path / "run", progress="none",
    )  # fmt: skip
    assert (result.pareto["latency_estimate_ms"] <= advised).all()
    assert len(result.pareto)


def nan_at_once(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets) * float("nan")


class NanLater:
    """A loss that is fine for a while."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss if self.left > 0 else loss * float("nan")


@pytest.mark.parametrize(
    ("subject", "loss", "words"),
    [
        pytest.param("model", nan_at_once, "the loss of the first batch is nan; check", id="once"),
        pytest.param("tiny_cnn", NanLater(15), r"the loss became nan at step \d+ of", id="space"),
        pytest.param(
            "model", NanLater(15), r"trials failed; the commonest reason .*nan", id="later"
        ),
    ],
)
def test_nan_loss(
    subject: str,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    words: str,
    fixed_profile: Path,
    tmp_path: Path,
) -> None:
    model = SmallCNN().eval() if subject == "model" else subject
    with pytest.raises(AutocompressError, match=words) as caught:
        ac.search(
            model, "digits", device=fixed_profile, budget=BUDGET, task=ac.Task(loss=loss),
            run_dir=tmp_path / "run", progress="none",
        )  # fmt: skip
    assert caught.value.exit_code == 2
    assert ac.SearchResult(tmp_path / "run").view.status == "failed"


IMAGES = torch.rand(40, 1, 8, 8)
LABELS = torch.arange(40) % 10


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(
            lambda: ac.Data(DataLoader(TensorDataset(IMAGES[:0], LABELS[:0])), (IMAGES, LABELS)),
            r"train .*(no|empty)",
            id="empty-loader",
        ),
        pytest.param(
            lambda: ac.Data((IMAGES, LABELS), (IMAGES[:0], LABELS[:0])),
            r"val .*(no|empty)",
            id="empty-tensors",
        ),
        pytest.param(lambda: ac.Data((IMAGES, LABELS[:30])), r"40 .*30", id="numbers-differ"),
        pytest.param(
            lambda: ac.Data((IMAGES, LABELS), (IMAGES[:, :, :4], LABELS)),
            r"all splits must look alike",
            id="shapes-differ",
        ),
        pytest.param(lambda: ac.Data(None), "train is missing; give a DataLoader", id="nothing"),
    ],
)
def test_data(make: Callable[[], ac.Data], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()


def test_targets_of_another_task(fixed_profile: Path, tmp_path: Path) -> None:
    data = ac.Data((IMAGES, torch.rand(40)), (IMAGES, torch.rand(40)))
    with pytest.raises(DataError, match=r"needs class labels \(integers\); for regression give"):
        ac.search(
            SmallCNN().eval(), data, device=fixed_profile, run_dir=tmp_path / "a", progress="none"
        )
    with pytest.raises(RequestError, match="builds classifiers, but the data has no class labels"):
        ac.search("tiny_cnn", data, device=fixed_profile, run_dir=tmp_path / "b", progress="none")


def test_resume_needs_what_the_folder_does_not_hold(
    places: dict[str, Path], tmp_path: Path
) -> None:
    theirs = places["runs"] / "theirs"
    with pytest.raises(RequestError, match=r"a model of class SmallCNN.*give it again"):
        ac.resume(theirs)
    with pytest.raises(StorageError, match=r"there is no run folder .*; check the path"):
        ac.resume(tmp_path / "nothing")
    with pytest.raises(StorageError, match=r"it has no run\.toml; check the path"):
        ac.resume(tmp_path)
    with pytest.raises(RequestError, match="resume is 'maybe'; use 'auto', 'never' or 'must'"):
        ac.search(SmallCNN(), "digits", run_dir=theirs, resume="maybe", progress="none")


def test_damaged_run_folder(places: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(places["runs"] / "theirs", tmp_path / "run")
    settings = tmp_path / "run" / "run.toml"
    settings.write_text(settings.read_text()[:60])
    with pytest.raises(StorageError, match=r"run\.toml .*; restore it from a copy, or start"):
        ac.resume(tmp_path / "run", SmallCNN(), progress="none")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param({"constraints": ["latency_ms"]}, "give a dict such as", id="list"),
        pytest.param({"constraints": {"latency_ms": True}}, "give a finite number", id="flag"),
        pytest.param({"constraints": {"accuracy": 97}}, "write 0.97 for 97 %", id="percent"),
        pytest.param({"constraints": {"accuracy_drop": 1.5}}, "write 0.015", id="percent-drop"),
        pytest.param({"task": "regression"}, "task is 'regression'; give", id="task"),
        pytest.param({"device": 3}, "device is 3; give a name", id="device"),
    ],
)
def test_values_of_the_wrong_kind(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        ac.search("tiny_cnn", "digits", budget=1, progress="none", **arguments)


@pytest.mark.parametrize(("name", "value"), [("trials", "3"), ("trials", 2.5), ("seconds", True)])
def test_budgets_of_the_wrong_kind(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"budget {name} is"):
        ac.Budget(**{name: value})


def test_parts_of_a_run_without_its_run_toml_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(StorageError, match=r"parts of a run \(plan.json\) but no run.toml"):
        ac.search("tiny_cnn", "digits", budget=1, run_dir=tmp_path, progress="none")


def test_a_model_file_that_exits(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(RequestError, match=r"model.py, line 2: importing it raised SystemExit"):
        load_model(f"{path}:make")


def test_resuming_nothing_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(RequestError, match="new holds no run to resume; check the path"):
        ac.search("tiny_cnn", "digits", budget=SECONDS, run_dir=folder, resume="must")
    assert not folder.exists()
