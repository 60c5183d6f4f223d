"""What a finished, interrupted or resumed run prints: the front, the checks, the files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import typer

from autocompress.core.json_values import finite
from autocompress.report import units
from autocompress.report.headline import headline
from autocompress.report.proof import proof_note
from autocompress.report.run_folder import Row, RunView, read_run, rows_of
from autocompress.report.tables import WIDE, front_table, front_text
from autocompress.report.trust import trust_lines


def show_outcome(run_dir: Path, *, as_json: bool = False, quiet: bool = False) -> None:
    """Print what a run that has just ended left in its folder.

    Raises:
        StorageError: the folder cannot be read.
        typer.Exit: the run was interrupted (exit code 130).
    """
    view = read_run(run_dir)
    show_run(view, as_json=as_json, quiet=quiet)
    if view.status == "interrupted":
        raise typer.Exit(130)


def show_run(view: RunView, *, as_json: bool = False, quiet: bool = False) -> None:
    """Print headline, front, checks and files to standard output."""
    if as_json:
        print(json.dumps(finite(_json(view)), allow_nan=False), flush=True)
    else:
        _show_front(view)
        if not quiet:
            print(units.printable("\n".join(closing_lines(view))))


def _show_front(view: RunView) -> None:
    print(f"\n{units.printable(headline(view).sentence)}\n")
    if view.models.empty:
        return
    if not sys.stdout.isatty():
        print(f"{front_text(view)}\n")
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(front_table(view, console.width))
    if console.width < WIDE:
        for _, row in view.pareto.iterrows():
            changes = units.printable(f"{row['name'] or row['id']}: {row['changes']}")
            console.print(changes, style="dim", markup=False)
        console.print()


def closing_lines(view: RunView) -> list[str]:
    """The verification line, the files, and what to do next."""
    folder = view.directory
    lines = [f"verified  {_verified(view)}"]
    if note := proof_note(view):
        lines.append(f"expected  {note}")
    lines += [f"left out  {reason}" for reason in _rejected(view)]
    lines += [f"{'trust' if i == 0 else '':<9} {line}" for i, line in enumerate(trust_lines(view))]
    files = ["pareto.csv", "report.html", "decisions.jsonl"]
    there = [folder / name for name in files if (folder / name).is_file()]
    best = headline(view).best
    model = folder / "models" / best / "model.onnx" if best is not None else None
    if model is not None and model.is_file():
        there.insert(0, model)
    lines += [f"{'files' if i == 0 else '':<9} {path}" for i, path in enumerate(there)]
    if view.status in {"interrupted", "running", "failed"}:
        lines.append(f"next      {view.resume_command}")
    elif model is not None and model.is_file():
        lines.append(f"next      open {folder / 'report.html'} or: autocompress verify {model}")
    return lines


def _verified(view: RunView) -> str:
    n = len(view.pareto)
    if n == 0:
        return "no model"
    names: dict[str, None] = {}
    for manifest in view.manifests.values():
        names |= {str(c.get("name")): None for c in rows_of(manifest, "checks")}
    what = f": {', '.join(names)}" if names else ""
    return f"{n} model{'s' if n > 1 else ''} re-opened and checked on the runtime{what}"


def _rejected(view: RunView) -> list[str]:
    reasons = []
    for identifier, manifest in view.rejected.items():
        failed = [c for c in rows_of(manifest, "checks") if c.get("ok") is not True]
        why = "; ".join(_why(check) for check in failed) or "no reason given"
        reasons.append(f"{manifest.get('name') or identifier}: {why}")
    return reasons


def _why(check: Row) -> str:
    text = str(check.get("name"))
    if check.get("value") is not None:
        text += f" {check.get('value')}"
    if check.get("limit") is not None:
        text += f" (limit {check.get('limit')})"
    return f"{text}: {check['detail']}" if check.get("detail") else text


def _json(view: RunView) -> Row:
    report = view.directory / "report.html"
    return {
        "kind": "result",
        "run_dir": str(view.directory),
        "status": view.status,
        "headline": headline(view).sentence,
        "note": proof_note(view),
        "baseline": _records(view.baselines),
        "pareto": _records(view.pareto),
        "rejected": list(view.rejected),
        "trust": rows_of(view.trust, "comparisons"),
        "report": str(report) if report.is_file() else None,
    }


def _records(frame: pd.DataFrame) -> list[Row]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]
