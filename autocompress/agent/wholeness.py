"""Whether results that a run folder holds are still as they were written."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from autocompress.agent.artifacts import MODEL
from autocompress.agent.run_folder import RunFolder
from autocompress.core.files import sha256_of
from autocompress.errors import StorageError
from autocompress.evaluation.text.tokenizer import FILE as VOCABULARY
from autocompress.export.manifest import NAME as MANIFEST
from autocompress.export.manifest import read_manifest

#: The front: one row a baseline or verified model. Written last.
TABLE = "pareto.csv"


def model_is_whole(folder: Path) -> bool:
    """Whether a model's file, and its vocabulary if it has one, are those of its manifest."""
    try:
        manifest = read_manifest(folder / MANIFEST)
        tokens = manifest.get("tokens")
        if tokens is not None and sha256_of(folder / VOCABULARY) != tokens["sha256"]:
            return False
        return bool(sha256_of(folder / MODEL) == manifest["sha256"])
    except (OSError, StorageError):
        return False


def table_is_whole(path: Path, ids: Collection[str]) -> bool:
    """Whether the table is complete to its last character and lists just these models."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error:
        return False
    if not text.endswith("\n") or len({len(row) for row in rows}) != 1 or rows[0][:1] != ["id"]:
        return False
    return sorted(row[0] for row in rows[1:]) == sorted(ids)


def results_are_whole(files: RunFolder) -> bool:
    """Whether every model of the table is there, and nothing else is."""
    found = [path for path in files.models.glob("*") if path.is_dir()]
    names = [path.name for path in found]
    return table_is_whole(files.path / TABLE, names) and all(map(model_is_whole, found))
