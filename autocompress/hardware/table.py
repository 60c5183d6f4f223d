"""Measured kernel times, keyed by signature; a CSV file that a person can read."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autocompress.core.files import write_atomically
from autocompress.errors import ProfileError
from autocompress.measurement.kernels import KernelSignature

COLUMNS = ("kernel", "hot_us", "ctx_us", "low_us", "high_us", "runs", "date", "protocol")
_FOOTER = "#rows"


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One kernel's measured time.

    Attributes:
        kernel: what was timed.
        hot_us: microseconds, run after run on the same data.
        ctx_us: microseconds, among copies with data of their own.
        low_us: lower end of the interval of ``hot_us``.
        high_us: upper end of the interval of both.
        runs: runs that count.
        date: ISO date.
        protocol: name of the timing protocol.
    """

    kernel: KernelSignature
    hot_us: float
    ctx_us: float
    low_us: float
    high_us: float
    runs: int
    date: str
    protocol: str


class LatencyTable:
    """Rows by kernel key. Not safe for several threads at once; files are."""

    def __init__(self, rows: Iterable[LatencyRow] = ()) -> None:
        self._rows: dict[str, LatencyRow] = {}
        self.add(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[LatencyRow]:
        return iter(self._rows.values())

    def __contains__(self, kernel: object) -> bool:
        return isinstance(kernel, KernelSignature) and kernel.key in self._rows

    def get(self, kernel: KernelSignature) -> LatencyRow | None:
        """The row of ``kernel``, or None."""
        return self._rows.get(kernel.key)

    def add(self, rows: Iterable[LatencyRow]) -> None:
        """Add rows; a later row for the same kernel replaces the earlier one."""
        for row in rows:
            self._rows[row.kernel.key] = row

    def to_csv(self) -> str:
        """The file's text: a header, a line a kernel sorted by key, a line with their number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key in sorted(self._rows):
            row = self._rows[key]
            figures = (row.hot_us, row.ctx_us, row.low_us, row.high_us)
            numbers = [f"{value:.4f}" for value in figures]
            writer.writerow([key, *numbers, row.runs, row.date, row.protocol])
        writer.writerow([_FOOTER, len(self._rows)])
        return text.getvalue()

    def save(self, path: Path) -> str:
        """Write the file, whole or not at all; returns its SHA-256."""
        text = self.to_csv()
        write_atomically(path, text)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def load(cls, path: Path, *, sha256: str | None = None) -> LatencyTable:
        """Read a file that :meth:`save` wrote.

        Raises:
            ProfileError: it is missing, truncated, altered or malformed; the message names the
                line.
        """
        try:
            raw = path.read_bytes()
            text = raw.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(
                f"cannot read the latency table {path}: {error}; restore it, or measure the device "
                "again"
            ) from error
        if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
            raise ProfileError(
                f"{path} is not the file its profile was written with (SHA-256 differs); "
                "restore it, or measure the device again"
            )
        return cls.parse(text, where=str(path))

    @classmethod
    def parse(cls, text: str, *, where: str = "latency table") -> LatencyTable:
        """The table of a CSV text.

        Raises:
            ProfileError: the text is truncated or malformed; the message names the line.
        """
        lines = list(csv.reader(io.StringIO(text)))
        if not lines or tuple(lines[0]) != COLUMNS:
            raise ProfileError(f"{where}: line 1 must be {','.join(COLUMNS)}")
        footer = lines[-1]
        if len(footer) != 2 or footer[0] != _FOOTER:
            raise ProfileError(
                f"{where}: the last line, '{_FOOTER},<number>', is missing; truncated"
            )
        body = lines[1:-1]
        if footer[1] != str(len(body)):
            raise ProfileError(f"{where}: {len(body)} rows, but the last line says {footer[1]!r}")
        return cls(_row(fields, f"{where}, line {i}") for i, fields in enumerate(body, start=2))


def _row(fields: list[str], where: str) -> LatencyRow:
    if len(fields) != len(COLUMNS):
        raise ProfileError(f"{where}: {len(fields)} fields instead of {len(COLUMNS)}")
    try:
        hot, ctx, low, high = (float(value) for value in fields[1:5])
        runs = int(fields[5])
    except ValueError as error:
        raise ProfileError(f"{where}: {error}") from error
    if not all(math.isfinite(v) and v >= 0 for v in (hot, ctx, low, high)) or runs < 1:
        raise ProfileError(f"{where}: times must be finite and not negative, runs at least 1")
    try:
        kernel = KernelSignature.parse(fields[0])
    except ProfileError as error:
        raise ProfileError(f"{where}: {error}") from error
    return LatencyRow(kernel, hot, ctx, low, high, runs, fields[6], fields[7])
