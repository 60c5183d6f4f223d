"""Measuring behind adb, against a scripted stand-in (``fake_adb.py``), not a real device."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from autocompress.errors import DeviceError, RequestError
from autocompress.measurement.remote.adb import AdbTransport
from autocompress.measurement.remote.programs import LinkLost
from autocompress.measurement.remote.session import RemoteOptions, RemoteSession, SessionEnd
from tests.unit.measurement.remote.packs import gemm, quick_pack, relu, rows_of

SERIAL = "emulator-5554"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder; the stand-in is first on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script = Path(__file__).with_name("fake_adb.py")
    (programs / "adb").write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "devices").write_text(f"{SERIAL}\tdevice\n")
    monkeypatch.setenv("FAKE_ADB", str(folder))
    return folder


def measure(folder: Path, *, python: str = sys.executable) -> tuple[SessionEnd, list[float]]:
    pack = quick_pack(folder / "bench.zip", kernels=[relu(4), gemm(128)])
    slept: list[float] = []
    session = RemoteSession(
        AdbTransport.parse(SERIAL),
        pack,
        archive=folder / "bench.zip",
        results=folder / "results.jsonl",
        options=RemoteOptions(python=python, folder=str(folder / "board")),
        sleep=slept.append,
    )
    return session.run(), slept


def test_from_the_pack_to_the_results(fake: Path, tmp_path: Path) -> None:
    end, slept = measure(tmp_path)
    assert (end.status, end.done, end.asked, slept) == ("complete", 2, 2, [])
    assert len(rows_of(tmp_path / "results.jsonl", "job")) == 2


def test_lost_on_the_way_and_back(fake: Path, tmp_path: Path) -> None:
    (fake / "fail").write_text(
        "push: error: device offline\nshell: error: closed\npull: error: device offline\n"
    )
    end, slept = measure(tmp_path)
    assert end.status == "complete"
    assert end.lost == 3
    assert slept == [2.0, 8.0, 30.0]
    keys = [row["key"] for row in rows_of(tmp_path / "results.jsonl", "job")]
    assert sorted(keys) == ["k0000/t1/r0", "k0001/t1/r0"]


def test_it_stays_away(fake: Path, tmp_path: Path) -> None:
    (fake / "fail").write_text("push: error: device offline\n" * 4)
    end, slept = measure(tmp_path)
    assert (end.status, end.done) == ("partial", 0)
    assert "the device is offline" in end.reason
    assert slept == [2.0, 8.0, 30.0]
    assert measure(tmp_path)[0].status == "complete"


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        pytest.param("", "sees no device 'emulator-5554'", id="none"),
        pytest.param("other\tdevice\n", "there are: other", id="another"),
        pytest.param(f"{SERIAL}\tunauthorized\n", "has not authorised", id="unauthorised"),
        pytest.param(f"{SERIAL}\toffline\n", "the device is offline", id="offline"),
        pytest.param(f"{SERIAL}\tno permissions (udev)\n", "udev rules", id="permissions"),
    ],
)
def test_a_device_that_cannot_be_used(fake: Path, devices: str, words: str) -> None:
    (fake / "devices").write_text(devices)
    with pytest.raises(DeviceError, match=words.replace("(", r"\(")):
        AdbTransport.parse(SERIAL).check()


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        pytest.param("", "adb sees no device; connect one", id="none"),
        pytest.param("a\tdevice\nb\tdevice\n", r"several devices \(a, b\)", id="several"),
    ],
)
def test_any_device(fake: Path, devices: str, words: str) -> None:
    assert AdbTransport.parse("any").serial == SERIAL
    (fake / "devices").write_text(devices)
    with pytest.raises(DeviceError, match=words):
        AdbTransport.parse("any")


def test_authorisation_withdrawn_in_between(fake: Path) -> None:
    transport = AdbTransport.parse(SERIAL)
    (fake / "fail").write_text("shell: error: device unauthorized.\n")
    with pytest.raises(DeviceError, match="has not authorised") as refused:
        transport.run(["true"], seconds=30)
    assert not isinstance(refused.value, LinkLost)


def test_exit_codes_and_quoting(fake: Path) -> None:
    transport = AdbTransport.parse(SERIAL)
    assert transport.run(["sh", "-c", "exit 7"], seconds=30).code == 7
    heard: list[str] = []
    done = transport.run(["printf", "%s\\n", "a b'c", "$(id);"], seconds=30, on_line=heard.append)
    assert (done.code, heard) == (0, ["a b'c", "$(id);"])


def test_a_full_storage(fake: Path, tmp_path: Path) -> None:
    (fake / "fail").write_text(
        "push: adb: error: failed to copy: remote write failed: No space left on device\n"
    )
    with pytest.raises(DeviceError, match="its storage is full; make room"):
        measure(tmp_path)


def test_no_python(fake: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"there is no 'python9'"):
        measure(tmp_path, python="python9")


def test_no_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="'adb' is not installed here"):
        AdbTransport.parse("any")


@pytest.mark.parametrize("serial", ["", "-d", "a b", "x;y"])
def test_what_is_no_serial_number(serial: str) -> None:
    with pytest.raises(RequestError, match="write a serial number"):
        AdbTransport.parse(serial)
