"""What all arms of ``joint_vs_staged`` share: data, device, start, time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from autocompress.agent.seeds import neighbours
from autocompress.core.candidate import Recipe
from autocompress.elastic.registry import load_space
from autocompress.elastic.space import ElasticSpace
from autocompress.evaluation.accuracy import evaluate_model
from autocompress.evaluation.data import Data
from autocompress.evaluation.fine_tune import fine_tune
from autocompress.evaluation.seeding import choose
from autocompress.evaluation.splits import ArraySplit, Split
from autocompress.evaluation.task import Task
from autocompress.graph.precision import quantized_tensors
from autocompress.hardware.builder import TableBuilder
from autocompress.hardware.local import local_profile
from autocompress.hardware.predictor import LatencyPredictor
from autocompress.hardware.profile import HardwareProfile
from autocompress.hardware.size import size_bytes
from autocompress.measurement.calibrating import calibrate_on
from benchmarks._kept import keep_json, keep_weights, kept_json
from benchmarks._volumes import Reference

FILE = "protocol.json"
#: Peak learning rate of the largest network's training, as a search trains a space's from nothing.
_RATE = 4e-3
#: Random candidates whose kernels are measured, and networks that the formula is fitted to.
_SAMPLES, _NETWORKS = 400, 10
#: Of the network that all seeds begin with.
_START_SEED = 0


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules; kept in the folder of runs, so that results under other rules do not mix.

    Attributes:
        data: the folder of CIFAR-10.
        space: name of the space.
        start: "trained": every arm of every seed begins with the same trained largest network, as
            a user's, whose training is not in the budget; "scratch": every arm trains its own,
            within it.
        seconds: an arm's budget.
        threads: cores of an arm.
        train: training examples.
        val: examples that every arm chooses by.
        checked: further ones of the training part that searches take for test examples, on which
            they verify their models: a model may be kept by them.
        test: test examples that accuracies are reported on; they choose nothing.
        epochs: of the largest network's training.
        table_seconds: for measuring the device's table.
        floor: accuracy at and below which a model adds no volume.
    """

    data: str
    space: str
    start: str
    seconds: float
    threads: int
    train: int
    val: int
    checked: int
    test: int
    epochs: int
    table_seconds: float
    floor: float

    def keep(self, folder: Path) -> None:
        """Write the rules down; or make sure that the folder's are the same.

        Raises:
            SystemExit: they are others.
        """
        mine, there = asdict(self), kept_json(folder / FILE)
        if there is None:
            keep_json(folder / FILE, mine)
            return
        changed = [name for name in mine | there if mine.get(name) != there.get(name)]
        if changed:
            said = ", ".join(f"{k} {mine.get(k)!r}, there {there.get(k)!r}" for k in changed)
            raise SystemExit(f"{folder} holds runs by other rules ({said}); give other --runs")

    @classmethod
    def read(cls, folder: Path) -> Protocol:
        """The rules of a folder of runs."""
        return cls(**kept_json(folder / FILE))


@dataclass(frozen=True)
class Ground:
    """Where an arm runs.

    Args:
        folder: of all runs.
        seed: of the run.
    """

    folder: Path
    seed: int

    @cached_property
    def protocol(self) -> Protocol:
        """The rules."""
        return Protocol.read(self.folder)

    @cached_property
    def loaded(self) -> Data:
        """All examples."""
        return Data.load(f"cifar10:{self.protocol.data}")

    @cached_property
    def data(self) -> Data:
        """What a search gets: every example is of the training part, those it verifies on, too."""
        rules, whole = self.protocol, self.loaded
        held = whole.val.subset(rules.val + rules.checked, seed=0)
        val, checked = _parted(held, rules.val)
        return Data(whole.train.subset(rules.train, seed=0), val, checked, name="cifar10")

    @cached_property
    def profile(self) -> HardwareProfile:
        """The device of all arms: this machine's table as it was before the first of them."""
        return HardwareProfile.load(self.folder / "device")

    @cached_property
    def reference(self) -> Reference:
        """The original in floats, and the accuracy from which models count."""
        space = ElasticSpace.from_model(self.network(), (self.data.example()[0],), techniques=[])
        ops = space.graph.operations(space.decode(space.original))
        return Reference(
            self.protocol.floor,
            LatencyPredictor(self.profile).estimate(ops).value,
            float(size_bytes(ops, quantized_tensors(ops))),
        )

    @property
    def weights(self) -> Path:
        """The trained largest network's."""
        return self.folder / "largest.safetensors"

    def network(self) -> nn.Module:
        """The space's largest network, not trained."""
        module = import_module(f"autocompress.search_spaces.{self.protocol.space}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_START_SEED)
            model: nn.Module = module.largest(
                input_shape=self.data.input_shape, num_classes=self.data.num_classes
            )
        return model

    @cached_property
    def start(self) -> ElasticSpace | str:
        """What searches begin with."""
        if self.protocol.start == "scratch":
            return self.protocol.space
        model = self.network()
        model.load_state_dict(load_file(self.weights))
        module = import_module(f"autocompress.search_spaces.{self.protocol.space}")
        describe = getattr(module, "architecture", None)
        return ElasticSpace.from_model(
            model.eval(),
            (self.data.example()[0],),
            name=self.protocol.space,
            architecture=describe(model) if describe is not None else (),
        )

    def prepare(self) -> None:
        """Measure the device and train the largest network, where that is not done yet."""
        if not (self.folder / "device" / "profile.toml").is_file():
            self._measure()
        if self.protocol.start == "trained" and not self.weights.is_file():
            self._train()

    def _measure(self) -> None:
        space = load_space(
            self.protocol.space, input_shape=self.data.input_shape,
            num_classes=int(self.data.num_classes or 0), capabilities=local_profile().capabilities,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        genomes = [space.original, *neighbours(space, rng, _SAMPLES)]
        networks = [space.graph.operations(space.decode(genome)) for genome in genomes]
        predictor = LatencyPredictor.for_device(local_profile(threads=1))
        builder = TableBuilder(predictor)
        builder.add(networks[:1], first=True)
        builder.add(networks[1:])
        print(builder.plan().sentence(), flush=True)
        built = builder.build(deadline=time.monotonic() + self.protocol.table_seconds)
        chosen = np.linspace(0, len(networks) - 1, _NETWORKS).astype(int)
        calibrate_on(predictor, [networks[i] for i in chosen])
        print(
            f"{built.measured} kernels measured, {built.missing} estimated from their kind "
            f"({1 - built.covered:.1%} of what sampled candidates execute)", flush=True,
        )  # fmt: skip
        # a name of its own: nothing more is measured for it, and all arms have the same prices
        profile = replace(predictor.calibrated_profile, id="this_machine", kind="measured")
        profile.save(self.folder / "device")

    def _train(self) -> None:
        model, rules = self.network(), self.protocol
        steps = max(1, rules.epochs * len(self.data.train) // 64)
        fine_tune(
            model, self.data.train, Task(),
            recipe=Recipe(distillation="none", learning_rate=_RATE),
            steps=steps, seed=_START_SEED, bfloat16=torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        )  # fmt: skip
        accuracy = evaluate_model(model, self.data.val, Task())
        print(f"the largest network was trained for {steps} steps; "
              f"{accuracy:.2%} of the validation examples", flush=True)  # fmt: skip
        keep_weights(self.weights, model)


def _parted(split: Split, first: int) -> tuple[Split, Split]:
    """So many examples of a split, by class, and the others."""
    if not isinstance(split, ArraySplit) or len(split) <= first:
        raise SystemExit(f"{len(split)} examples held in memory cannot be parted at {first}")
    chosen = choose(len(split), first, 0, split.labels)
    return split.take(chosen), split.take(np.setdiff1d(np.arange(len(split)), chosen))
