"""Verification: an exported file is opened again and everything claimed of it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import fx

from autocompress.compression.calibration import model_inputs
from autocompress.core.files import sha256_of
from autocompress.core.measurement import Measurement
from autocompress.errors import (
    AutocompressError,
    DataError,
    MissingExtraError,
    VerificationError,
)
from autocompress.export.loaded_precision import compare
from autocompress.runtimes.base import Runtime, Session, TensorSpec
from autocompress.runtimes.registry import load_runtime

#: From concatenated outputs and targets to the task's metric.
Metric: TypeAlias = Callable[[torch.Tensor, torch.Tensor], float]
Value: TypeAlias = float | str | None

#: Least share of examples on which torch and the runtime must agree, for quantised models.
AGREEMENT = 0.99
#: Largest difference of float outputs, relative to the largest output (at least 1).
DIFFERENCE = 1e-4
#: The same for the mean difference of quantised outputs where arg-max says nothing.
QUANTIZED_DIFFERENCE = 0.02


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what.
        ok: whether it holds.
        value: what was found.
        limit: what it had to be.
        detail: one sentence for a person.
    """

    name: str
    ok: bool
    value: Value = None
    limit: Value = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of verifying one file.

    Attributes:
        path: the file.
        checks: in the order they were made; what depends on a failed one is left out.
        metrics: figures found on the way: ``size_bytes``, ``accuracy`` (the task's metric, on the
            runtime), ``agreement``, ``max_difference``, ``latency_ms`` and its interval.
        examples: how many examples the metrics are over.
    """

    path: Path
    checks: tuple[Check, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    examples: int = 0

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.ok)

    def raise_if_failed(self) -> Verification:
        """Itself.

        Raises:
            VerificationError: a check does not hold; the message names all that do not.
        """
        if self.ok:
            return self
        reasons = "; ".join(f"{c.name}: {c.detail or c.value}" for c in self.failures)
        raise VerificationError(f"{self.path} is not what it claims to be: {reasons}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "ok": self.ok,
            "checks": [check.to_json() for check in self.checks],
            "metrics": dict(self.metrics),
            "examples": self.examples,
        }


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a file has to be; None is not checked.

    Attributes:
        sha256: its hash, in hexadecimal.
        size_bytes: its exact length.
        max_size_bytes: its greatest length.
        metric: the task's metric as claimed.
        metric_tolerance: largest difference from the claimed metric.
        max_latency_ms: its greatest measured latency.
        classification: whether outputs are compared by arg-max; otherwise by their difference.
        quantized: whether outputs may differ by rounding; None looks at the file.
    """

    sha256: str | None = None
    size_bytes: int | None = None
    max_size_bytes: int | None = None
    metric: float | None = None
    metric_tolerance: float = 0.01
    max_latency_ms: float | None = None
    classification: bool = True
    quantized: bool | None = None


def verify_artifact(
    path: str | Path,
    *,
    reference: fx.GraphModule | None = None,
    batches: Iterable[Sequence[torch.Tensor]] | None = None,
    metric: Metric | None = None,
    runtime: Runtime | None = None,
    expectations: Expectations | None = None,
    measure: Callable[[Path], Measurement] | None = None,
) -> Verification:
    """Open ``path`` in a fresh session and check it; failures are in the result, not raised.

    Args:
        path: an ONNX file.
        reference: the graph that was exported; its outputs are compared with the runtime's.
        batches: ``(inputs…, targets)`` of the split that the metric is computed over.
        metric: the task's metric of concatenated outputs and targets.
        runtime: what runs the file; None takes ONNX Runtime.
        expectations: what it has to be.
        measure: gives the file's latency.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    return _Verifier(Path(path), runtime or load_runtime(), expectations or Expectations()).run(
        reference, batches, metric, measure
    )


class _Verifier:
    def __init__(self, path: Path, runtime: Runtime, wanted: Expectations) -> None:
        self.path = path
        self.runtime = runtime
        self.wanted = wanted
        self.checks: list[Check] = []
        self.metrics: dict[str, float] = {}
        self.examples = 0

    def run(
        self,
        reference: fx.GraphModule | None,
        batches: Iterable[Sequence[torch.Tensor]] | None,
        metric: Metric | None,
        measure: Callable[[Path], Measurement] | None,
    ) -> Verification:
        if self._file() and self._valid():
            session = self._open()
            if session is not None:
                self._precision()
                if batches is not None:
                    self._compare(session, reference, batches, metric)
                if measure is not None:
                    self._latency(measure(self.path))
        return Verification(self.path, tuple(self.checks), dict(self.metrics), self.examples)

    def _add(
        self, name: str, ok: bool, value: Value = None, limit: Value = None, detail: str = ""
    ) -> bool:
        self.checks.append(Check(name, ok, value, limit, detail))
        return ok

    def _file(self) -> bool:
        """The file is there, whole and no larger than claimed."""
        if not self.path.is_file():
            return self._add("file", False, detail=f"{self.path} is missing")
        size = self.path.stat().st_size
        self.metrics["size_bytes"] = float(size)
        wanted, ok = self.wanted, True
        if wanted.size_bytes is not None:
            text = f"{size:,} bytes; {wanted.size_bytes:,} were claimed"
            ok &= self._add("bytes", size == wanted.size_bytes, size, wanted.size_bytes, text)
        if wanted.max_size_bytes is not None:
            text = f"{size:,} bytes; at most {wanted.max_size_bytes:,} were promised"
            self._add("size", size <= wanted.max_size_bytes, size, wanted.max_size_bytes, text)
        if wanted.sha256 is not None:
            found = sha256_of(self.path)
            text = "" if found == wanted.sha256 else "the SHA-256 differs: the file was changed"
            ok &= self._add("sha256", found == wanted.sha256, found, wanted.sha256, text)
        return ok

    def _valid(self) -> bool:
        import onnx

        try:
            onnx.checker.check_model(str(self.path), full_check=True)
        except Exception as error:
            return self._add("onnx", False, detail=f"no valid ONNX model: {_first_line(error)}")
        return self._add("onnx", True, detail="passes the ONNX checker")

    def _open(self) -> Session | None:
        try:
            session = self.runtime.load(self.path)
            session.run([spec.zeros() for spec in session.inputs])
        except MissingExtraError:
            raise  # nothing is said about the file
        except AutocompressError as error:
            self._add("loads", False, detail=_first_line(error))
            return None
        self._add("loads", True, detail=f"opens and runs in {self.runtime.name}")
        return session

    def _precision(self) -> None:
        try:
            ok, asked, running = compare(self.path, self.runtime)
        except AutocompressError as error:
            self._add("precision", False, detail=_first_line(error))
            return
        self._add("precision", ok, running, asked, f"{asked} were asked for; {running} run")

    def _compare(
        self,
        session: Session,
        reference: fx.GraphModule | None,
        batches: Iterable[Sequence[torch.Tensor]],
        metric: Metric | None,
    ) -> None:
        first, found, expected, targets = _outputs(session, reference, batches)
        self.examples = len(found)
        if not self._add(
            "finite", bool(torch.isfinite(found).all()), detail="outputs without NaN or infinity"
        ):
            return
        if reference is not None and self._agreement(found, expected):
            self._sizes(session, reference, first)
        if metric is not None:
            self._metric(metric(found, targets))

    def _agreement(self, found: torch.Tensor, expected: torch.Tensor) -> bool:
        if found.shape != expected.shape:
            shapes = f"{tuple(found.shape)} instead of {tuple(expected.shape)}"
            return self._add("outputs", False, detail=f"the runtime gives shape {shapes}")
        difference = (found - expected).abs()
        scale = max(1.0, float(expected.abs().max()))
        largest = float(difference.max())
        self.metrics["max_difference"] = largest
        quantized, ok = self._is_quantized(), True
        classes = self.wanted.classification and found.ndim >= 2
        if classes:
            same = float((found.argmax(1) == expected.argmax(1)).double().mean())
            self.metrics["agreement"] = same
            text = f"torch and the runtime agree on {same:.2%} of {len(found):,} examples"
            ok &= self._add("agreement", same >= AGREEMENT, same, AGREEMENT, text)
        if not quantized:
            limit = DIFFERENCE * scale
            text = f"outputs differ by at most {largest:.2g}"
            ok &= self._add("difference", largest <= limit, largest, limit, text)
        elif not classes:
            mean, limit = float(difference.mean()), QUANTIZED_DIFFERENCE * scale
            text = f"outputs differ by {mean:.2g} on average"
            ok &= self._add("difference", mean <= limit, mean, limit, text)
        return ok

    def _is_quantized(self) -> bool:
        if self.wanted.quantized is not None:
            return self.wanted.quantized
        return _has_integers(self.path)

    def _sizes(
        self, session: Session, reference: fx.GraphModule, inputs: Sequence[torch.Tensor]
    ) -> None:
        """What the file leaves free is free: other sizes give what torch gives for them."""
        sizes = _other_sizes(session.inputs, inputs)
        if not sizes:
            return
        shapes = "; ".join(", ".join(str(tuple(x.shape)) for x in given) for given in sizes)
        try:
            pairs = [_pair(session, reference, given) for given in sizes]
        except Exception as error:  # torch and every runtime raise errors of their own
            text = f"inputs of shape {shapes} do not run: {_first_line(error)}"
            self._add("sizes", False, detail=text)
            return
        for found, expected in pairs:
            if found.shape != expected.shape or not bool(torch.isfinite(found).all()):
                text = f"{tuple(found.shape)}, torch {tuple(expected.shape)}, or no finite numbers"
                self._add("sizes", False, detail=f"for inputs {shapes} the runtime gives {text}")
                return
        quantized = self._is_quantized()
        differences = [(found - expected).abs() for found, expected in pairs]
        worst = max(float(d.mean() if quantized else d.max()) for d in differences)
        scale = max(1.0, *(float(expected.abs().max()) for _, expected in pairs))
        limit = (QUANTIZED_DIFFERENCE if quantized else DIFFERENCE) * scale
        # of a few examples one rounding may count for more than it does on average
        limit = max(limit, self.metrics["max_difference"])
        text = f"inputs of shape {shapes} give outputs that differ by at most {worst:.2g}"
        self._add("sizes", worst <= limit, worst, limit, text)

    def _metric(self, value: float) -> None:
        self.metrics["accuracy"] = value
        claimed = self.wanted.metric
        if claimed is None:
            return
        tolerance = self.wanted.metric_tolerance
        ok = math.isfinite(value) and abs(value - claimed) <= tolerance
        text = f"{value:.4f} on the runtime over {self.examples:,} examples; {claimed:.4f} claimed"
        self._add("accuracy", ok, value, claimed, text)

    def _latency(self, measured: Measurement) -> None:
        if not measured.ok:
            self._add("latency", False, detail=f"it could not be timed: {measured.error}")
            return
        self.metrics["latency_ms"] = measured.value
        self.metrics["latency_low_ms"] = measured.low
        self.metrics["latency_high_ms"] = measured.high
        limit = self.wanted.max_latency_ms
        if limit is not None:
            text = f"{measured.value:.4g} ms; at most {limit:.4g} ms were promised"
            self._add("latency", measured.value <= limit, measured.value, limit, text)


@torch.no_grad()
def _outputs(
    session: Session,
    reference: fx.GraphModule | None,
    batches: Iterable[Sequence[torch.Tensor]],
) -> tuple[Sequence[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    """First inputs, the runtime's outputs, the reference's (empty without one), the targets."""
    first: Sequence[torch.Tensor] = ()
    found, expected, targets = [], [], []
    if reference is not None:
        reference.eval()
    for batch in batches:
        count = len(session.inputs)
        if len(batch) <= count:
            raise DataError(
                f"a batch holds {len(batch)} tensors; the model takes {count} inputs and the "
                "targets come after them"
            )
        inputs = batch[:count]
        first = first or inputs
        result = session.run([x.numpy() for x in inputs])[0]
        found.append(torch.from_numpy(result))
        targets.append(batch[count])
        if reference is not None:
            expected.append(reference(*model_inputs(reference, inputs)))
    if not found:
        raise DataError("there are no examples to verify with; give at least one batch")
    references = torch.cat(expected) if expected else torch.empty(0)
    return first, torch.cat(found), references, torch.cat(targets)


def _other_sizes(
    specs: Sequence[TensorSpec], inputs: Sequence[torch.Tensor]
) -> list[list[torch.Tensor]]:
    """Inputs of another batch size, and of half the length, where a file leaves these free."""
    found: list[list[torch.Tensor]] = []
    if any(spec.shape[:1] == (None,) for spec in specs):
        found.append([x[:1] if len(x) > 1 else torch.cat([x, x]) for x in inputs])
    free = [
        [axis for axis, size in enumerate(spec.shape) if axis and size is None] for spec in specs
    ]
    if any(free):
        shorter = [x[:3] for x in inputs]
        for i, axes in enumerate(free):
            for axis in axes:
                shorter[i] = shorter[i].narrow(axis, 0, max(1, shorter[i].shape[axis] // 2))
        found.append(shorter)
    return found


def _pair(
    session: Session, reference: fx.GraphModule, inputs: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the runtime and the reference give."""
    given = [x.contiguous() for x in inputs]
    found = torch.from_numpy(session.run([x.numpy() for x in given])[0])
    with torch.no_grad():
        return found, reference(*model_inputs(reference, given))


def _has_integers(path: Path) -> bool:
    import onnx

    return any(n.op_type == "QuantizeLinear" for n in onnx.load(str(path)).graph.node)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
