"""A bench pack: one zip with everything that is timed on a device that is elsewhere.

``jobs.json`` says what and how, ``models/`` holds the ONNX files, ``runner.py`` does it with
Python, numpy and ONNX Runtime alone. The same request gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocompress.core.files import replacing
from autocompress.errors import ProfileError, RequestError
from autocompress.measurement.kernel_models import COPIES, empty_model, kernel_model, needs_copies
from autocompress.measurement.kernels import KernelSignature
from autocompress.measurement.networks import Network
from autocompress.measurement.protocol import TABLE, TimingProtocol

SCHEMA = 1
JOBS_FILE = "jobs.json"
RUNNER_FILE = "runner.py"
#: Times that everything is gone through, so that one slow minute does not decide.
ROUNDS = 3
#: Jobs that take turns; more would let the device drift between the turns of one of them.
GROUP = 8
#: Whole networks, in each round and in a fresh process each time.
NETWORKS = TimingProtocol("networks", warmup=20, min_runs=50, min_seconds=0.05, passes=3)
#: Slower than its best by more than this share: the core is throttled, or not wholly ours.
THROTTLING_TOLERANCE = 0.15
THROTTLING_WAIT_SECONDS = 15.0

_JOBS_LIMIT_BYTES = 64_000_000
_DATE = (1980, 1, 1, 0, 0, 0)
_README = """\
A bench pack of autocompress. On the device (Python 3.8 or newer, numpy, onnxruntime):

    python3 runner.py

It prints its progress, may be stopped at any moment, and goes on when it is started again.
Then bring results.jsonl back and run, where autocompress is installed:

    autocompress devices import-results results.jsonl --pack bench.zip --id my_board --out DIR

python3 runner.py --help lists its options (--threads, --limit-seconds).
"""


@dataclass(frozen=True, slots=True)
class PackedNetwork:
    """A whole network of a pack.

    Attributes:
        name: for a person.
        kernels: what the runtime should execute for it by the pack's lowering, views included.
    """

    name: str
    kernels: tuple[KernelSignature, ...]


@dataclass(frozen=True)
class BenchPack:
    """What a pack asks a device to time.

    Attributes:
        id: SHA-256 over everything else, the models' hashes included.
        source: where the kernels come from, as plain values.
        runtime: name, options and lowering, as the profile will state them.
        threads: numbers of threads.
        rounds: times that everything is gone through.
        group: jobs that take turns.
        protocols: by kind of job, "kernel" and "network".
        throttling: tolerance (a share) and wait_seconds.
        kernels: by job.
        networks: by job.
        skipped: kernels without a model, and why.
    """

    id: str
    source: Mapping[str, Any]
    runtime: Mapping[str, Any]
    threads: tuple[int, ...]
    rounds: int
    group: int
    protocols: Mapping[str, TimingProtocol]
    throttling: Mapping[str, float]
    kernels: Mapping[str, KernelSignature]
    networks: Mapping[str, PackedNetwork]
    skipped: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all figures that the runner is to bring, each job in each round at all threads."""
        jobs = (*self.networks, *self.kernels)
        return tuple(
            f"{job}/t{count}/r{turn}"
            for turn in range(self.rounds)
            for count in self.threads
            for job in jobs
        )

    @property
    def least_seconds(self) -> float:
        """What the device takes at least, its loading of models left out."""
        per_round = sum(
            self.protocols[kind].min_seconds * number
            for kind, number in (("kernel", 2 * len(self.kernels)), ("network", len(self.networks)))
        )
        return per_round * self.rounds * len(self.threads)

    @classmethod
    def from_json(cls, value: Any, *, where: str) -> BenchPack:
        """The pack of the content of ``jobs.json``.

        Raises:
            ProfileError: it is not understood.
        """
        schema = value.get("schema_version") if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise ProfileError(
                f"{where} has schema_version {schema!r}; this version reads {SCHEMA}: update "
                "autocompress, or make the pack again"
            )
        try:
            jobs = value["jobs"]
            pack = cls(
                id=str(value["id"]),
                source=dict(value["source"]),
                runtime=dict(value["runtime"]),
                threads=tuple(int(count) for count in value["threads"]),
                rounds=int(value["rounds"]),
                group=int(value["group"]),
                protocols={
                    kind: TimingProtocol.from_json(value["protocols"][kind])
                    for kind in ("kernel", "network")
                },
                throttling={k: float(v) for k, v in value["throttling"].items()},
                kernels={
                    str(job["id"]): KernelSignature.parse(job["kernel"])
                    for job in jobs
                    if job["kind"] == "kernel"
                },
                networks={
                    str(job["id"]): PackedNetwork(
                        str(job["name"]), tuple(KernelSignature.parse(k) for k in job["kernels"])
                    )
                    for job in jobs
                    if job["kind"] == "network"
                },
                skipped={str(k): str(v) for k, v in value["skipped"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, ProfileError) as error:
            raise ProfileError(
                f"{where} is not understood ({type(error).__name__}: {error}); make the pack again"
            ) from error
        if _identity(value) != pack.id:
            raise ProfileError(f"{where} was altered (its id does not fit); make the pack again")
        return pack


def runner_source() -> bytes:
    """The runner as it goes into packs."""
    return (Path(__file__).parent / "remote" / RUNNER_FILE).read_bytes()


def write_pack(
    path: Path,
    *,
    kernels: Sequence[KernelSignature],
    networks: Sequence[tuple[Network, Sequence[KernelSignature]]],
    runtime: Mapping[str, Any],
    source: Mapping[str, Any],
    threads: Sequence[int] = (1,),
    rounds: int = ROUNDS,
    kernel_protocol: TimingProtocol = TABLE,
    network_protocol: TimingProtocol = NETWORKS,
    throttling_wait_seconds: float = THROTTLING_WAIT_SECONDS,
) -> BenchPack:
    """Write a pack; kernels of the networks are added to ``kernels`` where they are missing.

    Args:
        path: the zip file.
        kernels: the first ones are timed first.
        networks: whole networks with their kernels, for the calibration.
        runtime: name, options and lowering of what will execute them.
        source: where the kernels come from, for the record.
        threads: numbers of threads.
        rounds: times that everything is gone through.
        kernel_protocol: how kernels are timed in a round.
        network_protocol: how networks are timed in a round.
        throttling_wait_seconds: pause before a chunk is timed again on a slow core; 0 for none.

    Raises:
        RequestError: there is nothing to time, or a number makes no sense.
        StorageError: the file cannot be written.
    """
    counts = tuple(dict.fromkeys(threads))
    if not counts or min(counts) < 1 or rounds < 1:
        raise RequestError(f"threads are {list(counts)}, rounds {rounds}; each must be at least 1")
    wanted = {k.key: k for k in kernels}
    wanted |= {k.key: k for _, executed in networks for k in executed}
    timed = [kernel for kernel in wanted.values() if not kernel.is_view]
    if not timed:
        raise RequestError("there is no kernel to time; give another space")
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _add(archive, RUNNER_FILE, runner_source())
        _add(archive, "README.txt", _README.encode())
        jobs: list[dict[str, Any]] = []
        skipped: dict[str, str] = {}
        empty = _add(archive, "models/empty.onnx", empty_model())
        for number, (network, executed) in enumerate(networks):
            job: dict[str, Any] = {"id": f"n{number:02}", "kind": "network", "name": network.name}
            model = _add(archive, f"models/{job['id']}.onnx", network.onnx())
            jobs.append(job | {"kernels": [k.key for k in executed], "models": {"model": model}})
        for number, kernel in enumerate(timed):
            job = {"id": f"k{number:04}", "kind": "kernel", "kernel": kernel.key}
            try:
                models = list(_models(kernel))
            except RequestError as error:
                skipped[kernel.key] = str(error)
                continue
            jobs.append(
                job
                | {
                    "models": {
                        name: _add(archive, f"models/{job['id']}-{name}.onnx", model)
                        for name, model in models
                    }
                }
            )
        value: dict[str, Any] = {
            "schema_version": SCHEMA,
            "source": dict(source),
            "runtime": dict(runtime),
            "threads": list(counts),
            "rounds": rounds,
            "group": GROUP,
            "protocols": {
                "kernel": kernel_protocol.to_json(),
                "network": network_protocol.to_json(),
            },
            "throttling": {
                "tolerance": THROTTLING_TOLERANCE,
                "wait_seconds": throttling_wait_seconds,
            },
            "empty": empty,
            "jobs": jobs,
            "skipped": skipped,
        }
        value["id"] = _identity(value)
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
        _add(archive, JOBS_FILE, text.encode())
    return BenchPack.from_json(json.loads(text), where=f"{JOBS_FILE} in {path}")


def read_pack(path: Path) -> BenchPack:
    """What a pack asks for; none of its models is read.

    Raises:
        RequestError: there is no such file.
        ProfileError: it is no bench pack, or a damaged one.
    """
    where = f"{JOBS_FILE} in {path}"
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(JOBS_FILE)
            if member.file_size > _JOBS_LIMIT_BYTES:
                raise ProfileError(f"{where} has {member.file_size} bytes; that is no bench pack")
            value = json.loads(archive.read(member))
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}; give the bench pack") from None
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ProfileError(
            f"{path} is no readable bench pack ({error}); make it again with: "
            "autocompress devices pack"
        ) from error
    return BenchPack.from_json(value, where=where)


def _models(kernel: KernelSignature) -> Iterator[tuple[str, bytes]]:
    yield "hot", kernel_model(kernel)
    if needs_copies(kernel):
        yield "copies", kernel_model(kernel, copies=COPIES)


def _identity(value: Mapping[str, Any]) -> str:
    content = {key: item for key, item in value.items() if key != "id"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> dict[str, str]:
    """Store a member, always with the same date and rights; its path and hash."""
    member = zipfile.ZipInfo(name, _DATE)
    member.create_system = 3
    member.external_attr = 0o644 << 16
    archive.writestr(member, content)
    return {"path": name, "sha256": hashlib.sha256(content).hexdigest()}
