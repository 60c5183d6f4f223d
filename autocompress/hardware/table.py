"""Measured kernel times, keyed by signature; a CSV file that a person can read."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from autocompress.core.files import write_atomically
from autocompress.errors import ProfileError
from autocompress.hardware.latency_row import COLUMNS, LatencyRow, check_columns, parse_row
from autocompress.measurement.kernels import KernelSignature

__all__ = ["COLUMNS", "MAX_TABLE_BYTES", "LatencyRow", "LatencyTable"]

#: A larger file is refused unread; a row takes about 150 bytes.
MAX_TABLE_BYTES = 16 * 1024 * 1024
_FOOTER = "#rows"


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
        """The file's text: a header, a line a kernel sorted by key, a line with their number.

        Raises:
            ProfileError: a row holds what no reader would accept, such as a negative time.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key in sorted(self._rows):
            writer.writerow(self._rows[key].to_fields())
        writer.writerow([_FOOTER, len(self._rows)])
        return text.getvalue()

    def save(self, path: Path) -> str:
        """Write the file, whole or not at all; returns its SHA-256.

        Raises:
            ProfileError: a row holds what no reader would accept.
            StorageError: the folder cannot be written.
        """
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
            if path.stat().st_size > MAX_TABLE_BYTES:
                raise ProfileError(
                    f"{path} is larger than {MAX_TABLE_BYTES} bytes; this is no profile's table"
                )
            raw = path.read_bytes()
        except OSError as error:
            raise ProfileError(
                f"cannot read the latency table {path}: {error}; restore it, or measure the device "
                "again"
            ) from error
        return cls.from_bytes(raw, where=str(path), sha256=sha256)

    @classmethod
    def from_bytes(cls, raw: bytes, *, where: str, sha256: str | None = None) -> LatencyTable:
        """The table of a file's bytes, which must have that SHA-256 where one is given.

        Raises:
            ProfileError: as for :meth:`load`.
        """
        try:
            table = cls.parse(raw.decode("utf-8"), where=where)
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise ProfileError(
                f"cannot read the latency table {where}, line {line}: {error}; restore it, or "
                "measure the device again"
            ) from error
        if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
            raise ProfileError(
                f"{where} is not the file its profile was written with (SHA-256 differs; changed "
                "line ends suffice); restore it, or measure the device again"
            )
        return table

    @classmethod
    def parse(cls, text: str, *, where: str = "latency table") -> LatencyTable:
        """The table of a CSV text.

        Raises:
            ProfileError: the text is truncated or malformed; the message names the line.
        """
        table, before = cls(), ""
        footer: str | None = None
        for number, fields in _lines(text, where):
            at = f"{where}, line {number}"
            if number == 1:
                check_columns(fields, where)
            elif footer is not None:
                raise ProfileError(f"{at}: something follows the last line; restore the file")
            elif fields[:1] == [_FOOTER] and len(fields) == 2:
                footer = fields[1]
            else:
                row = parse_row(fields, at)
                _check_order(before, row.kernel.key, at)
                before = row.kernel.key
                table._rows[before] = row
        if footer is None:
            raise ProfileError(
                f"{where}: the last line, '{_FOOTER},<number>', is missing: the file is truncated; "
                "restore it, or measure the device again"
            )
        if footer != str(len(table)):
            raise ProfileError(
                f"{where}: {len(table)} rows, but the last line says {footer[:40]!r}; restore the "
                "file, or measure the device again"
            )
        return table


def _lines(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line, with the line's number; nothing is read ahead."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise ProfileError(
            f"{where}, line {reader.line_num}: {error}; restore the file, or measure the device "
            "again"
        ) from error


def _check_order(before: str, key: str, where: str) -> None:
    if key == before:
        raise ProfileError(f"{where}: {key!r} has a row already; remove one of the two")
    if key < before:
        raise ProfileError(f"{where}: {key!r} belongs before {before!r}; sort the rows by kernel")
