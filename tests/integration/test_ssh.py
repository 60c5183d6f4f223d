"""Measuring behind ssh, against a real sshd on loopback: cut off, away, refused, resumed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.cli import main
from autocompress.cli.devices import measuring
from autocompress.errors import DeviceError, RequestError
from autocompress.hardware import load_profile
from autocompress.measurement.pack import BenchPack
from autocompress.measurement.remote import runner, session
from autocompress.measurement.remote.programs import LinkLost
from autocompress.measurement.remote.results import read_results
from autocompress.measurement.remote.session import RemoteOptions, RemoteSession
from autocompress.measurement.remote.ssh import SshTransport
from tests.integration.sshd import LoopbackSshd, find_sshd, make_key
from tests.unit.measurement.remote.packs import gemm, quick_pack, relu, rows_of

#: Two chunks a round.
KERNELS = [relu(4 * n) for n in range(1, 9)] + [gemm(128)]
FIGURES = len(KERNELS)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[LoopbackSshd]:
    program = find_sshd()
    if program is None:
        pytest.skip("no sshd here: install openssh-server, or name one in AUTOCOMPRESS_SSHD")
    folder = tmp_path / "sshd"
    folder.mkdir()
    server = LoopbackSshd(program, folder)
    server.start()
    yield server
    server.stop()


class Bench:
    """One pack, one board, and what the sessions with it said."""

    def __init__(self, server: LoopbackSshd, folder: Path, *, rounds: int = 1) -> None:
        self.server, self.folder = server, folder
        self.archive = folder / "bench.zip"
        self.pack: BenchPack = quick_pack(self.archive, kernels=KERNELS, rounds=rounds)
        self.results = folder / "results.jsonl"
        self.board = folder / "board with spaces; and 'quotes'"
        self.said: list[str] = []
        self.slept: list[float] = []

    @property
    def there(self) -> Path:
        """The board's own folder of the pack."""
        return self.board / self.pack.id[:12]

    def session(
        self, *, python: str = sys.executable, options: list[str] | None = None
    ) -> RemoteSession:
        chosen = self.server.options if options is None else options
        return RemoteSession(
            SshTransport.parse(self.server.target, chosen),
            self.pack,
            archive=self.archive,
            results=self.results,
            options=RemoteOptions(python=python, folder=str(self.board)),
            progress=lambda text, done, total: self.heard(text),
            sleep=self.slept.append,
        )

    def heard(self, text: str) -> None:
        self.said.append(text)

    def keys(self) -> list[str]:
        return [row["key"] for row in rows_of(self.results, "job")]


@pytest.fixture
def bench(sshd: LoopbackSshd, tmp_path: Path) -> Bench:
    return Bench(sshd, tmp_path)


def test_from_the_pack_to_the_results(bench: Bench) -> None:
    end = bench.session().run()
    assert (end.status, end.done, end.asked, end.lost) == ("complete", FIGURES, FIGURES, 0)
    assert len(read_results(bench.results, bench.pack).jobs) == FIGURES
    assert bench.results.read_bytes() == (bench.there / "results.jsonl").read_bytes()
    assert not (bench.there / "bench.zip").exists()  # unpacked, it is only in the way
    assert any("copying the pack" in text for text in bench.said)
    bench.said.clear()
    assert bench.session().run().status == "complete"
    assert not any("copying" in text for text in bench.said)
    assert len(bench.keys()) == FIGURES


def test_cut_off_in_the_middle(
    sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is killed twice while the runner works; it goes on where it stopped."""
    bench = Bench(sshd, tmp_path, rounds=3)  # six chunks: the second cut is not at the end
    cuts: list[int] = []

    def heard(text: str) -> None:
        bench.said.append(text)
        if "jobs done" in text and len(cuts) < 2:
            cuts.append(bench.server.cut())

    monkeypatch.setattr(bench, "heard", heard)
    end = bench.session().run()
    assert len(cuts) == 2
    assert min(cuts) > 0
    assert end.status == "complete"
    assert end.lost == 2
    assert bench.slept == [2.0, 2.0]  # progress in between: the pauses start over
    assert sorted(bench.keys()) == sorted(bench.pack.keys)  # all of them, none twice
    assert len(rows_of(bench.results, "session")) >= 2


def test_it_stays_away_and_a_later_call_goes_on(
    sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(sshd, tmp_path, rounds=2)

    def heard(text: str) -> None:
        if "jobs done" in text:
            bench.server.stop()

    monkeypatch.setattr(bench, "heard", heard)
    end = bench.session().run()
    assert end.status == "partial"
    assert "Connection refused" in end.reason
    assert bench.slept == [2.0, 8.0, 30.0]
    assert end.done < len(bench.pack.keys)
    finished_there = [row["key"] for row in rows_of(bench.there / "results.jsonl", "job")]
    monkeypatch.undo()
    bench.server.start()
    assert bench.session().run().status == "complete"
    assert sorted(bench.keys()) == sorted(bench.pack.keys)
    assert bench.keys()[: len(finished_there)] == finished_there


def test_a_board_that_lost_its_disk_gets_its_results_back(bench: Bench) -> None:
    bench.session().run()
    lines = bench.results.read_text().splitlines(keepends=True)
    bench.results.write_text("".join(lines[:6]) + lines[6][:40])  # torn, too
    shutil.rmtree(bench.board)
    end = bench.session().run()
    assert end.status == "complete"
    assert any("handing the results" in text for text in bench.said)
    assert bench.results.read_text().startswith("".join(lines[:6]))
    assert sorted(bench.keys()) == sorted(bench.pack.keys)


def test_the_time_is_over(bench: Bench) -> None:
    limited = bench.session()
    limited.options = RemoteOptions(
        python=sys.executable, folder=str(bench.board), limit_seconds=0.0
    )
    end = limited.run()
    assert (end.status, end.done) == ("stopped", 0)


def test_two_sessions_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.session().run()
    lines = bench.results.read_text().splitlines(keepends=True)[:5]
    for path in (bench.results, bench.there / "results.jsonl"):
        path.write_text("".join(lines))
    monkeypatch.setattr(session, "_WAIT_LOCK_SECONDS", 0.0)
    again = bench.session()
    with (
        runner.only_one(str(bench.there), 0.0),
        pytest.raises(DeviceError, match="another runner works in"),
    ):
        again.run()


# -- what can be wrong, each with its own words ---------------------------------------------------


def test_an_unknown_host_key(bench: Bench) -> None:
    (bench.server.folder / "known_hosts").write_text("")
    with pytest.raises(DeviceError, match="its host key is not known here; connect once by hand"):
        bench.session().run()


def test_a_changed_host_key(bench: Bench) -> None:
    make_key(bench.server.folder / "other_key")
    kind, key = (bench.server.folder / "other_key.pub").read_text().split()[:2]
    known = f"[127.0.0.1]:{bench.server.port} {kind} {key}\n"
    (bench.server.folder / "known_hosts").write_text(known)
    with pytest.raises(DeviceError, match="not the one in known_hosts"):
        bench.session().run()


def test_a_refused_key(bench: Bench) -> None:
    make_key(bench.server.folder / "other_key")
    options = [f"IdentityFile={bench.server.folder / 'other_key'}", *bench.server.options[1:]]
    with pytest.raises(DeviceError, match=r"it refuses our key .* ssh-copy-id"):
        bench.session(options=options).run()


def test_nobody_listens(bench: Bench) -> None:
    bench.server.stop()
    with pytest.raises(LinkLost, match="Connection refused"):
        bench.session().run()
    assert bench.slept == []  # at the first call it is told at once


def test_no_such_host() -> None:
    transport = SshTransport.parse("somebody@no-such-host.invalid")
    with pytest.raises(DeviceError, match="no such host is known"):
        transport.check()


def test_no_python(bench: Bench) -> None:
    with pytest.raises(DeviceError, match=r"there is no 'python9'.*--remote-python"):
        bench.session(python="python9").run()


def test_no_packages(bench: Bench) -> None:
    bare = bench.folder / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(DeviceError, match=r"its Python lacks numpy; run there: .* -m pip install"):
        bench.session(python=str(bare)).run()


def test_a_full_disk(bench: Bench) -> None:
    """The copy lands on /dev/full: a real "no space left" by the kernel."""
    bench.there.mkdir(parents=True)
    (bench.there / "bench.zip.part").symlink_to("/dev/full")
    with pytest.raises(DeviceError, match="its disk is full; make room"):
        bench.session().run()


def test_a_place_that_cannot_be_written(bench: Bench) -> None:
    bench.board.write_text("a file where the folder should be")
    with pytest.raises(DeviceError, match="mkdir failed there"):
        bench.session().run()


def test_a_wrong_option(bench: Bench) -> None:
    with pytest.raises(RequestError, match="nosuchoption"):
        bench.session(options=["NoSuchOption=1"]).run()


# -- the command ----------------------------------------------------------------------------------


def test_the_command(
    sshd: LoopbackSshd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring, "SAMPLES", 3)
    command = ["devices", "measure", "--ssh", sshd.target, "--input", "1x8x8", "--kernels", "2"]
    command += ["--networks", "0", "--rounds", "1", "--id", "my_board", "--out", str(tmp_path)]
    command += ["--remote-python", sys.executable, "--remote-dir", str(tmp_path / "board")]
    for option in sshd.options:
        command += ["--ssh-option", option]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--json"])
    out, err = capfd.readouterr()
    assert not ended.value.code, err
    result = json.loads(out.splitlines()[-1])
    assert (result["status"], result["kernels"], result["networks"]) == ("complete", 2, 0)
    profile = load_profile(tmp_path / "my_board")
    assert len(profile.table) == 2
    assert "complete: 2 of 2 kernels" in profile.provenance.source
