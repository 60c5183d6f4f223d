"""Each technique, and pairs of them, on a trained ResNet-20: accuracy, bytes and time.

Every layer (but the first and the last, where a note says so) takes one setting; the model is
evaluated as it is and after a short training with distillation, exported, packed, opened again and
timed in turns with the original. Accuracies are those of ONNX Runtime on CIFAR-10's 10,000 test
images, which decide nothing here. ONNX Runtime's own static quantisation, calibrated on the same
images, is a row of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autocompress.compression.low_rank import LowRank
from autocompress.compression.pruning import width_options
from autocompress.compression.registry import make_techniques
from autocompress.core.candidate import Candidate, LayerPolicy
from autocompress.core.capabilities import Capabilities
from autocompress.elastic.model import ElasticModel
from autocompress.elastic.observing import observe_inputs
from autocompress.elastic.space import without_unusable_widths
from autocompress.evaluation.data import Data
from autocompress.evaluation.evaluator import CandidateEvaluator, Effort, PreparedModel
from autocompress.evaluation.task import Task
from autocompress.export.onnx_export import export_onnx
from autocompress.export.packing.container import pack
from autocompress.graph.inspect import inspect_model
from autocompress.graph.model_graph import ModelGraph
from autocompress.runtimes.registry import load_runtime
from benchmarks._data import folder
from benchmarks._resnet20 import trained_resnet20
from benchmarks._truth import measure_all

Policies = Mapping[str, LayerPolicy]
#: Steps of training in full, and with ``--quick``.
STEPS, QUICK_STEPS = 200, 4
_STEP = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """What all layers take.

    Attributes:
        fields: policy fields of every layer.
        ends: those of the first and the last layer instead.
        width: share of each free group's channels that stays.
        rank: form of low rank, of which layers take the middle one of the ranks on offer.
    """

    fields: Mapping[str, Any]
    ends: Mapping[str, Any] | None = None
    width: float = 1.0
    rank: str | None = None


_INT8 = {"weight_bits": 8, "activation_bits": 8}
_INT4 = {"weight_bits": 4, "activation_bits": 8}
SINGLE = {
    "int8": Setting(_INT8),
    "int4": Setting(_INT4),
    "int3": Setting(_INT4 | {"weight_bits": 3}, _INT8),
    "int2": Setting(_INT4 | {"weight_bits": 2}, _INT8),
    "binary": Setting(_INT4 | {"weight_bits": 1}, _INT8),
    "pruning": Setting({}, width=0.75),
    "whitened": Setting({}, rank="whitened"),
    "spatial": Setting({}, rank="spatial"),
    "cp": Setting({}, rank="cp"),
    "tucker": Setting({}, rank="tucker"),
    "sparsity": Setting({"sparsity": 0.8}, {}),
    "clustering": Setting({"codebook": 16}),
}
PAIRED = ("int8", "int4", "pruning", "spatial", "sparsity", "clustering")


def main(*, quick: bool, data: Path | None, seed: int) -> dict[str, Any]:
    """Run it; needs CIFAR-10 and the trained model."""
    place = folder(data, "cifar10")
    held = Data.load(f"cifar10:{place}")
    if quick:
        held = Data(held.train, held.val.subset(200, seed=0), held.test.subset(200, seed=0))
    with tempfile.TemporaryDirectory(prefix="autocompress-bench-") as scratch:
        return _Run(place.parent, held, Path(scratch), quick=quick, seed=seed).run()


class _Run:
    def __init__(
        self, data_folder: Path, data: Data, scratch: Path, *, quick: bool, seed: int
    ) -> None:
        self.data, self.scratch, self.quick, self.seed = data, scratch, quick, seed
        model = trained_resnet20(data_folder)
        self.example = data.example()[0]
        graph = without_unusable_widths(inspect_model(model, (self.example,)))
        self.graph: ModelGraph = graph
        names = ["pruning", "low_rank:whitened", "sparsity", "quantization", "clustering"]
        elastic = ElasticModel(graph, make_techniques(names))
        observe_inputs(elastic, Candidate(), (x for x, _ in data.calibration.batches(64)))
        self.evaluator = CandidateEvaluator(
            elastic, data, Task(),
            effort=Effort(learning_rate=2e-3, batch_size=128), teacher=model.eval(),
        )  # fmt: skip
        self.files: dict[str, Path] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """All rows, and what the targets are about."""
        print(f"{'technique':24} {'untrained':>9} {'trained':>8} {'bytes':>8} {'packed':>8}")
        self._add("fp32", Candidate(), trains=False)
        self._add_static()
        for name, candidate in self._candidates().items():
            self._add(name, candidate)
        timed = measure_all(self.files, "onnxruntime", 1)
        fp32 = self.rows[0]
        for row in self.rows:
            name = row["technique"]
            row["accuracy_before"] = fp32["accuracy_after"]
            row["bytes_ratio"] = fp32["bytes"] / row["bytes"]
            row["packed_ratio"] = fp32["bytes"] / row["packed_bytes"]
            row["latency_ratio"] = timed["fp32"] / timed[name] if name in timed else None
        self._print()
        return self._summary(timed)

    def _candidates(self) -> dict[str, Candidate]:
        found = {name: self._candidate(setting) for name, setting in SINGLE.items()}
        pairs = [(a, b) for i, a in enumerate(PAIRED) for b in PAIRED[i + 1 :]]
        for first, second in pairs[:2] if self.quick else pairs:
            if {first, second} == {"int8", "int4"}:
                continue  # both are bits
            found[f"{first}+{second}"] = self._candidate(_both(SINGLE[first], SINGLE[second]))
        return found

    def _candidate(self, setting: Setting) -> Candidate:
        names = list(self.graph.layers)
        policies = {name: dict(setting.fields) for name in names}
        if setting.ends is not None:
            policies |= {name: dict(setting.ends) for name in (names[0], names[-1])}
        for group in self.graph.groups.values():
            if setting.width < 1.0 and group.rigid is None:
                wanted = setting.width * group.channels
                width = min(width_options(group.channels, _STEP), key=lambda w: abs(w - wanted))
                for name in group.producers:
                    if name in policies:
                        policies[name]["width"] = width
        if setting.rank is not None:
            technique = LowRank([setting.rank])
            for choice in technique.choices(self.graph, Capabilities(rank_step=_STEP)):
                middle = choice.options[(len(choice.options) + 1) // 2]
                policies[choice.name.partition(":")[2]] |= technique.settings(choice, middle)
        return Candidate(layers={n: LayerPolicy(**fields) for n, fields in policies.items()})

    def _add(self, name: str, candidate: Candidate, *, trains: bool = True) -> None:
        began = time.monotonic()
        untrained = self.evaluator.prepare(candidate, steps=0, seed=self.seed, repaired=True)
        before = self._accuracy(self._write(f"{name}-untrained", untrained))
        path, after = self.scratch / f"{name}-untrained.onnx", before
        if trains:
            steps = QUICK_STEPS if self.quick else STEPS
            trained = self.evaluator.prepare(candidate, steps=steps, seed=self.seed)
            path = self._write(name, trained)
            after = self._accuracy(path)
        self._row(name, path, before, after, time.monotonic() - began)

    def _add_static(self) -> None:
        """ONNX Runtime's static quantisation: QDQ, uint8 activations, int8 weights by channel."""
        from onnxruntime import quantization as ort

        source, path = self.files["fp32"], self.scratch / "runtime_static.onnx"
        name = load_runtime().load(source).inputs[0].name
        batches = [{name: x.numpy()} for x in self.evaluator.calibration_batches()]

        class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left = iter(batches)

            def get_next(self) -> dict[str, Any] | None:
                return next(self.left, None)

        ort.quantize_static(
            source, path, Reader(), quant_format=ort.QuantFormat.QDQ, per_channel=True,
            activation_type=ort.QuantType.QUInt8, weight_type=ort.QuantType.QInt8,
        )  # fmt: skip
        accuracy = self._accuracy(path)
        self._row("runtime_static", path, accuracy, accuracy, 0.0)

    def _write(self, name: str, prepared: PreparedModel) -> Path:
        path = self.scratch / f"{name}.onnx"
        export_onnx(prepared.model, prepared.ops, (self.example,), path)
        return path

    def _row(self, name: str, path: Path, before: float, after: float, seconds: float) -> None:
        packed = pack(path, self.scratch / f"{name}.acz")
        self.files[name] = path
        self.rows.append({
            "technique": name, "accuracy_untrained": before, "accuracy_after": after,
            "bytes": path.stat().st_size, "packed_bytes": packed.stat().st_size,
        })  # fmt: skip
        print(f"{name:24} {before:9.2f} {after:8.2f} {path.stat().st_size:8,} "
              f"{packed.stat().st_size:8,}  {seconds:.0f} s", flush=True)  # fmt: skip

    def _accuracy(self, path: Path) -> float:
        session = load_runtime().load(path, threads=torch.get_num_threads())
        name, right = session.inputs[0].name, 0
        for inputs, targets in self.data.test.batches(500):
            answers = session.run({name: inputs.numpy()})[0]
            right += int((np.argmax(answers, axis=1) == targets.numpy()).sum())
        return 100.0 * right / len(self.data.test)

    def _summary(self, timed: Mapping[str, float]) -> dict[str, Any]:
        by_name = {row["technique"]: row for row in self.rows}
        fp32, int8, int4 = by_name["fp32"], by_name["int8"], by_name["int4"]
        return {
            "rows": self.rows,
            "int8_above_runtime_static": int8["accuracy_untrained"]
            - by_name["runtime_static"]["accuracy_after"],
            "int4_untrained_drop": fp32["accuracy_after"] - int4["accuracy_untrained"],
            "int4_trained_drop": fp32["accuracy_after"] - int4["accuracy_after"],
            "int2_trained_drop": fp32["accuracy_after"] - by_name["int2"]["accuracy_after"],
            "int4_bytes_share": int4["bytes"] / fp32["bytes"],
            "int4_speed_of_int8": timed["int8"] / timed["int4"],
        }

    def _print(self) -> None:
        print(f"\n{'technique':24} {'accuracy':>8} {'smaller':>8} {'packed':>8} {'faster':>8}")
        for row in self.rows:
            faster = row["latency_ratio"]
            print(f"{row['technique']:24} {row['accuracy_after']:8.2f} {row['bytes_ratio']:7.2f}x "
                  f"{row['packed_ratio']:7.2f}x "
                  + (f"{faster:7.2f}x" if faster else "      -"))  # fmt: skip


def _both(first: Setting, second: Setting) -> Setting:
    ends = None
    if first.ends is not None or second.ends is not None:
        parts: list[Mapping[str, Any]] = [
            s.fields if s.ends is None else s.ends for s in (first, second)
        ]
        ends = {**parts[0], **parts[1]}
    return replace(
        first,
        fields={**first.fields, **second.fields},
        ends=ends,
        width=min(first.width, second.width),
        rank=first.rank or second.rank,
    )
