"""Measures a device behind ssh or adb: packs, copies, runs, fetches, imports."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autocompress.cli.devices.import_results import save_results, show
from autocompress.cli.devices.measuring import profile_folder
from autocompress.cli.devices.packing import pack_space
from autocompress.cli.devices.request import SpaceRequest
from autocompress.core.events import Event
from autocompress.errors import DeviceError, RequestError
from autocompress.hardware.machine import cache_folder, slug
from autocompress.measurement.pack import BenchPack
from autocompress.measurement.remote.adb import AdbTransport
from autocompress.measurement.remote.importing import Imported, is_of_pack
from autocompress.measurement.remote.results import finished_keys
from autocompress.measurement.remote.session import (
    REMOTE_FOLDER,
    Progress,
    RemoteOptions,
    RemoteSession,
    SessionEnd,
)
from autocompress.measurement.remote.ssh import SshTransport
from autocompress.measurement.remote.transport import Transport
from autocompress.report.display import Display

#: The one place of an Android device where anybody may write and run.
ADB_FOLDER = f"/data/local/tmp/{REMOTE_FOLDER}"


@dataclass(frozen=True)
class RemoteMeasured:
    """What a session with a device came to.

    Attributes:
        end: how it ended.
        results: the runner's results, kept here.
        saved: the profiles' folders and what they rest on; empty where nothing was measured.
    """

    end: SessionEnd
    results: Path
    saved: list[tuple[Path, Imported]]


def make_transport(ssh: str | None, ssh_options: Sequence[str], adb: str | None) -> Transport:
    """The way to the device that the options name.

    Raises:
        RequestError: both or neither are given, or one has a wrong form.
        DeviceError: ``--adb any`` and not exactly one device is attached.
    """
    if (ssh is None) == (adb is None):
        raise RequestError("give either --ssh user@host or --adb SERIAL")
    if ssh is not None:
        return SshTransport.parse(ssh, ssh_options)
    if ssh_options:
        raise RequestError("--ssh-option belongs to --ssh")
    return AdbTransport.parse(str(adb))


def default_folder(transport: Transport) -> str:
    """Where on the device the pack goes: under the home folder, or Android's own place."""
    return ADB_FOLDER if isinstance(transport, AdbTransport) else REMOTE_FOLDER


def work_folder(transport: Transport, pack: BenchPack) -> Path:
    """Where results of this pack from this device are kept, so that a later call goes on."""
    return cache_folder() / "remote" / f"{slug(transport.name)}-{pack.id[:12]}"


def measure_remote(
    transport: Transport,
    pack: BenchPack,
    archive: Path,
    *,
    identifier: str,
    out: Path,
    options: RemoteOptions,
    progress: Progress | None = None,
) -> RemoteMeasured:
    """Measure a pack on a device and write the profiles, partial ones included.

    Raises:
        RequestError: the profile's name is taken.
        DeviceError: the device cannot be reached or used.
    """
    if not is_of_pack(out / identifier, pack):
        profile_folder(identifier, out)
    folder = work_folder(transport, pack)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    session = RemoteSession(
        transport, pack, archive=archive, results=results, options=options, progress=progress
    )
    end = session.run()
    saved = []
    if finished_keys(results):
        saved = save_results(pack, results, identifier=identifier, out=out)
    return RemoteMeasured(end, results, saved)


def measure_there(
    request: SpaceRequest,
    *,
    transport: Transport,
    python: str,
    folder: str | None,
    seconds: float | None,
    identifier: str | None,
    out: Path,
    display: Display,
    as_json: bool,
) -> None:
    """Pack a space, measure it on a device, and say what came of it.

    Raises:
        RequestError: the request or the name cannot be used.
        DeviceError: the device cannot be used, or stayed away; what was measured is kept.
    """
    if identifier is None:
        raise RequestError("give the profile a name with --id, such as --id my_board")
    digest = hashlib.sha256(str(request).encode()).hexdigest()[:12]
    archive = cache_folder() / "remote" / f"{slug(request.space)[:40]}-{digest}.zip"
    transport.check()  # a wrong name or key is told before anything is packed
    with display:
        display(Event("measure", "stage_started", f"packing {request.space}"))
        pack = pack_space(request, archive)

        def tell(text: str, done: int, total: int) -> None:
            display(Event("measure", "progress", text, {"done": done, "total": total}))

        display(Event("measure", "stage_started", f"measuring {transport.name}"))
        found = measure_remote(
            transport,
            pack,
            archive,
            identifier=identifier,
            out=out,
            options=RemoteOptions(
                python=python,
                folder=folder or default_folder(transport),
                limit_seconds=math.inf if seconds is None else seconds,
            ),
            progress=tell,
        )
    show(found.saved, as_json=as_json)
    if found.end.status == "complete":
        return
    message = (
        f"{found.end.status}: {found.end.reason}; {found.end.done} of {found.end.asked} figures "
        f"are here ({found.results}); run the same command again to go on"
    )
    if found.end.status == "partial":
        raise DeviceError(message)
    print(message, file=sys.stderr)
