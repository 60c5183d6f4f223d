from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from autocompress.errors import ProfileError, RequestError
from autocompress.measurement.kernels import KernelSignature, TensorType
from autocompress.measurement.pack import BenchPack, read_pack, runner_source, write_pack
from tests.unit.measurement.remote.packs import RUNTIME, gemm, quick_pack, relu


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "bench.zip"
    quick_pack(path, networks=2, rounds=2, threads=(1, 2))
    return path


def test_same_request_same_bytes(archive: Path, tmp_path: Path) -> None:
    quick_pack(tmp_path / "again.zip", networks=2, rounds=2, threads=(1, 2))
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    other = quick_pack(tmp_path / "other.zip", networks=2, rounds=3, threads=(1, 2))
    assert other.id != read_pack(archive).id


def test_what_is_in_it(archive: Path) -> None:
    pack = read_pack(archive)
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        assert opened.read("runner.py") == runner_source()
        jobs = json.loads(opened.read("jobs.json"))
    assert len(names) == len(set(names))
    listed = {m["path"] for job in jobs["jobs"] for m in job["models"].values()}
    assert listed | {"models/empty.onnx", "runner.py", "README.txt", "jobs.json"} == set(names)
    assert [set(job["models"]) for job in jobs["jobs"] if job["kind"] == "network"] == [
        {"model"},
        {"model"},
    ]
    # only kernels that move more than the nearest caches hold are timed among copies
    by_kernel = {job.get("kernel"): set(job["models"]) for job in jobs["jobs"]}
    assert by_kernel[relu(4).key] == {"hot"}
    assert by_kernel[gemm(128).key] == {"hot", "copies"}
    # the networks' kernels are measured too: nothing of their sums is guessed
    measured = {kernel.key for kernel in pack.kernels.values()}
    for network in pack.networks.values():
        assert {k.key for k in network.kernels if not k.is_view} <= measured
    assert len(pack.keys) == 2 * 2 * (len(pack.kernels) + 2)


def test_a_kernel_without_a_model_is_listed(tmp_path: Path) -> None:
    odd = TensorType("bfloat99", (1, 2))
    kernel = KernelSignature("Relu", (odd,), (odd,))
    pack = quick_pack(tmp_path / "bench.zip", kernels=[relu(4), kernel])
    assert list(pack.kernels.values()) == [relu(4)]
    assert "bfloat99" in pack.skipped[kernel.key]


@pytest.mark.parametrize(
    ("kernels", "threads", "rounds"),
    [
        pytest.param([], (1,), 1, id="nothing"),
        pytest.param([relu(4)], (), 1, id="no-threads"),
        pytest.param([relu(4)], (0,), 1, id="zero-threads"),
        pytest.param([relu(4)], (1,), 0, id="no-rounds"),
    ],
)
def test_a_wrong_request_writes_nothing(
    tmp_path: Path, kernels: list[KernelSignature], threads: tuple[int, ...], rounds: int
) -> None:
    with pytest.raises(RequestError):
        write_pack(
            tmp_path / "bench.zip",
            kernels=kernels,
            networks=[],
            runtime=RUNTIME,
            source={},
            threads=threads,
            rounds=rounds,
        )
    assert list(tmp_path.iterdir()) == []


def rewritten(archive: Path, change: dict[str, Any]) -> Path:
    """The same pack with other values in ``jobs.json``, as an attacker or an accident leaves it."""
    with zipfile.ZipFile(archive) as opened:
        value = json.loads(opened.read("jobs.json")) | change
    path = archive.with_name("altered.zip")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("jobs.json", json.dumps(value))
    return path


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"schema_version": 99}, id="schema"),
        pytest.param({"rounds": 7}, id="altered"),
        pytest.param({"threads": "many"}, id="threads"),
        pytest.param({"jobs": [{"kind": "kernel", "id": "k", "kernel": "nonsense"}]}, id="kernel"),
        pytest.param({"protocols": {}}, id="protocols"),
        pytest.param({"jobs": None}, id="jobs"),
    ],
)
def test_altered_jobs_are_refused(archive: Path, change: dict[str, Any]) -> None:
    with pytest.raises((ProfileError, RequestError), match=r"jobs\.json"):
        read_pack(rewritten(archive, change))


def test_no_pack_at_all(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        read_pack(tmp_path / "none.zip")
    for content in (b"", b"PK\x03\x04 cut", b"text"):
        path = tmp_path / "bad.zip"
        path.write_bytes(content)
        with pytest.raises(ProfileError, match="no readable bench pack"):
            read_pack(path)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("other.txt", "")
    with pytest.raises(ProfileError, match="no readable bench pack"):
        read_pack(path)
    with pytest.raises(ProfileError, match="schema_version None"):
        BenchPack.from_json([], where="here")
