"""A scripted stand-in for ``adb``: NOT Android, and no proof that a phone works.

It speaks adb's command line and its error texts, and runs "on the device" on this machine.
``$FAKE_ADB`` names a folder: ``devices`` lists serial numbers and states, ``fail`` holds what
the next calls of one verb answer ("push: adb: error: ..."), a line a call. Like old devices it
hands no exit code over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_ADB"])


def refuse(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(1)


def planned(verb: str) -> None:
    path = FOLDER / "fail"
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines):
        if line.startswith(f"{verb}: "):
            path.write_text("\n".join(lines[:number] + lines[number + 1 :]))
            refuse(line.removeprefix(f"{verb}: "))


def main(arguments: list[str]) -> None:
    devices = dict(line.split("\t") for line in (FOLDER / "devices").read_text().splitlines())
    if arguments == ["devices"]:
        print("List of devices attached")
        for serial, state in devices.items():
            print(f"{serial}\t{state}")
        print()
        return
    flag, serial, verb, *rest = arguments
    assert flag == "-s"
    if serial not in devices:
        refuse(f"adb: device '{serial}' not found")
    if devices[serial] == "unauthorized":
        refuse("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set")
    if devices[serial] == "offline":
        refuse("error: device offline")
    planned(verb)
    if verb == "shell":
        subprocess.run(["/bin/sh", "-c", *rest], check=False)
    elif verb in {"push", "pull"}:
        source, target = rest
        if not Path(source).exists():
            refuse(f"adb: error: failed to stat remote object '{source}': No such file")
        shutil.copyfile(source, target)
        print(f"{source}: 1 file {verb}ed, 0 skipped.")
    else:
        refuse(f"adb: unknown command {verb}")


if __name__ == "__main__":
    main(sys.argv[1:])
