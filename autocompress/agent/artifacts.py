"""Exported models of a run: written, verified, timed, described."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autocompress.agent.changes import changes_of
from autocompress.agent.context import Context
from autocompress.agent.figures import Row, counted, estimated, layer_rows, share_interval
from autocompress.core.candidate import Candidate
from autocompress.core.files import sha256_of, writing
from autocompress.core.local_device import DEFAULT_RUNTIME
from autocompress.core.measurement import Measurement
from autocompress.evaluation.evaluator import PreparedModel
from autocompress.evaluation.text.tokenizer import FILE as VOCABULARY
from autocompress.evaluation.text.tokenizer import PADDING_ID
from autocompress.export.manifest import NAME as MANIFEST
from autocompress.export.manifest import read_manifest, write_manifest
from autocompress.export.onnx_export import export_onnx
from autocompress.export.verification import Check, Expectations, Verification, verify_artifact
from autocompress.graph.ops import Op
from autocompress.hardware.profile import HardwareProfile
from autocompress.measurement.models import measure_interleaved
from autocompress.runtimes.base import Runtime
from autocompress.runtimes.registry import load_runtime

MODEL = "model.onnx"
#: Test examples on which torch and the runtime are compared; accuracy is over all of them.
COMPARED = 2048


@dataclass(eq=False)
class Artifact:
    """An exported model.

    Attributes:
        row: its figures.
        folder: where it lies.
        candidate: what it was made from.
        ops: its operations.
        checks: what was checked.
        broken: bounds it breaks, or why it is not returned.
        latency: how it was timed, when it was.
    """

    row: Row
    folder: Path
    candidate: Candidate
    ops: tuple[Op, ...]
    checks: tuple[Check, ...] = ()
    broken: list[str] = field(default_factory=list)
    latency: Measurement | None = None

    @property
    def path(self) -> Path:
        """The ONNX file."""
        return self.folder / MODEL

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def failures(self) -> list[str]:
        """The checks that do not hold, in words."""
        return [f"{c.name}: {c.detail or c.value}" for c in self.checks if not c.ok]

    @classmethod
    def of_row(cls, context: Context, row: Row) -> Artifact:
        """The artifact of a baseline's row."""
        candidate = Candidate.from_json(row["candidate"])
        ops = context.space.graph.operations(candidate)
        return cls(row, context.folder.models / str(row["id"]), candidate, ops)

    def refresh_manifest(self) -> None:
        """Bring the figures of a manifest that is there up to date; its checks stay."""
        manifest = read_manifest(self.folder / MANIFEST)
        manifest["metrics"] = {k: v for k, v in self.row.items() if k != "candidate"}
        if self.latency is not None:
            manifest["environment"] = dict(self.latency.environment)
            manifest["protocol"] = dict(self.latency.protocol)
        write_manifest(self.folder, manifest)

    def write_manifest(self, context: Context) -> None:
        """Write ``manifest.json`` beside the model."""
        checks = [c.to_json() for c in self.checks]
        checks += [{"name": "bound", "ok": False, "detail": text} for text in self.broken]
        measured = self.latency
        write_manifest(
            self.folder,
            {
                "id": self.row["id"],
                "name": self.row["name"],
                "sha256": sha256_of(self.path),
                "size_bytes": self.path.stat().st_size,
                "runtime": checking_runtime(context.profile).name,
                "candidate": self.candidate.to_json(),
                "metrics": {k: v for k, v in self.row.items() if k != "candidate"},
                **self._tokens(context),
                "checks": checks,
                "layers": layer_rows(context, self.candidate, self.ops),
                "environment": dict(measured.environment) if measured else {},
                "protocol": dict(measured.protocol) if measured else {},
            },
        )

    def _tokens(self, context: Context) -> Row:
        """How texts become the model's inputs, when that is what they are."""
        tokenizer = context.request.data.tokenizer
        if tokenizer is None:
            return {}
        return {
            "tokens": {
                "vocabulary": VOCABULARY,
                "sha256": sha256_of(self.folder / VOCABULARY),
                "length": tokenizer.length,
                "padding_id": PADDING_ID,
            }
        }


def write_artifact(
    context: Context,
    candidate: Candidate,
    prepared: PreparedModel,
    identifier: str,
    *,
    name: str | None = None,
) -> Artifact:
    """Export a prepared model, re-open it and check it against torch and the data.

    It lies in the staging folder until :func:`move` takes it to where it belongs.

    Raises:
        AutocompressError: it cannot be exported.
    """
    folder = context.folder.staging / identifier
    remove(folder)
    with writing(folder):
        folder.mkdir(parents=True)
    path = folder / MODEL
    export_onnx(prepared.model, prepared.ops, context.space.graph.example_inputs, path)
    if context.request.data.tokenizer is not None:
        context.request.data.tokenizer.save(folder / VOCABULARY)
    data, task = context.request.data, context.request.task
    verified = functools.partial(verify_artifact, path, runtime=checking_runtime(context.profile))
    compared = verified(
        reference=prepared.model,
        batches=data.test.batches(64, limit=COMPARED),
        expectations=Expectations(classification=task.gives_logits),
    )
    val = verified(batches=data.val.batches(64), metric=task.evaluate)
    found = verified(batches=data.test.batches(64), metric=task.evaluate)
    changes = changes_of(context.space, candidate)
    row: Row = {
        "id": identifier,
        "kind": "baseline" if identifier.startswith("baseline-") else "solution",
        "name": name or identifier,
        "accuracy": found.metrics.get("accuracy"),
        "val_accuracy": val.metrics.get("accuracy"),
        "agreement": compared.metrics.get("agreement"),
        "changes": changes,
        "candidate": candidate.to_json(),
        **(share_interval(found) if task.metric_is_share else {}),
        **counted(prepared.ops, path, context.profile.memory),
        **estimated(context, prepared.ops),
    }
    return Artifact(row, folder, candidate, prepared.ops, (*compared.checks, *_accuracy(found)))


def checking_runtime(profile: HardwareProfile) -> Runtime:
    """The device's own runtime where it is this machine; for others ONNX Runtime stands in."""
    return load_runtime(profile.runtime.name if profile.is_local else DEFAULT_RUNTIME)


def _accuracy(found: Verification) -> tuple[Check, ...]:
    """What else the runtime said over the whole test split."""
    value = found.metrics.get("accuracy")
    text = f"{found.examples:,} test examples recomputed on the runtime"
    return (*found.failures, Check("accuracy", value is not None, value, detail=text))


def move(artifact: Artifact, folder: Path) -> None:
    """Move a model that is described completely to where it belongs: ``folder/<id>``.

    Raises:
        StorageError: it cannot be moved.
    """
    target = folder / artifact.folder.name
    if target == artifact.folder:
        return
    remove(target)
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
        artifact.folder.rename(target)
    artifact.folder = target


def remove(folder: Path) -> None:
    """Delete a folder, or a file, that may not be there.

    Raises:
        StorageError: it cannot be deleted.
    """
    with writing(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)


def measure_latencies(context: Context, artifacts: Sequence[Artifact]) -> list[Row]:
    """Measured latency of each model where the device is at hand, all in turns."""
    good = [a for a in artifacts if a.path.is_file()]
    if not context.profile.is_local or not good:
        return [{} for _ in artifacts]
    runtime = context.profile.runtime
    measured = measure_interleaved(
        [a.path for a in good], runtime=runtime.name, threads=runtime.threads
    )
    rows: dict[int, Row] = {}
    for artifact, found in zip(good, measured, strict=True):
        artifact.latency = found
        if found.ok:
            rows[id(artifact)] = {
                "latency_ms": found.value,
                "latency_low_ms": found.low,
                "latency_high_ms": found.high,
            }
        else:
            check = Check("latency", False, detail=f"could not be timed: {found.error}")
            artifact.checks = (*artifact.checks, check)
    return [rows.get(id(artifact), {}) for artifact in artifacts]
