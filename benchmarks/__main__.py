"""Run one benchmark: ``python -m benchmarks NAME [--quick] [--data DIR] [--seed N]``.

A benchmark is a module ``benchmarks/NAME.py`` with ``main(*, quick, data, seed) -> dict``: it
prints a readable table and returns plain numbers, which become the last line of the output. One
with options of its own has ``options(parser)``, too, and takes their values as keyword arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError

ROOT = Path(__file__).resolve().parent


def names() -> list[str]:
    """The benchmarks there are: the modules beside this one that do not start with ``_``."""
    return sorted(m.name for m in pkgutil.iter_modules([str(ROOT)]) if not m.name.startswith("_"))


def default_data() -> Path | None:
    """``$AUTOCOMPRESS_DATA``, or ``../shared/data`` beside the project, or None."""
    chosen = os.environ.get("AUTOCOMPRESS_DATA")
    place = Path(chosen) if chosen else ROOT.parent.parent / "shared" / "data"
    return place if place.is_dir() else None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; leaves with status 2 when they are wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(names()) or 'none yet'}")
    parser.add_argument("--quick", action="store_true", help="same logic, fewer iterations")
    parser.add_argument("--data", type=Path, default=None, help="folder of real data")
    parser.add_argument("--seed", type=int, default=0)
    named = [argument for argument in arguments if argument in names()][:1]
    for name in named:
        describe = getattr(import_module(f"benchmarks.{name}"), "options", None)
        if describe is not None:
            describe(parser.add_argument_group(name))
    options = parser.parse_args(arguments)
    if options.name not in names():
        there = ", ".join(names()) or "none yet"
        parser.error(f"no benchmark is called {options.name!r}; there are: {there}")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data} is no folder")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its result line; the exit status is returned."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    values = vars(options)
    run: Callable[..., dict[str, Any]] = import_module(f"benchmarks.{values.pop('name')}").main
    if values["data"] is None:
        values["data"] = default_data()
    try:
        result = run(**values)
    except AutocompressError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    line = json.dumps(result, sort_keys=True, allow_nan=False)
    sys.stdout.flush()
    print(f"RESULT {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
