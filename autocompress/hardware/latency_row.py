"""One line of a latency table: a kernel, its times in microseconds, and when they were taken."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date as calendar_date

from autocompress.errors import ProfileError
from autocompress.hardware.remedies import remedy
from autocompress.measurement.kernels import KernelSignature, TensorType

COLUMNS = ("kernel", "hot_us", "ctx_us", "low_us", "high_us", "runs", "date", "protocol")
#: The smallest time that the file can hold: its figures have four decimals.
RESOLUTION_US = 0.0001
#: The largest: eleven days.
LARGEST_US = 1e12
_FIGURES = slice(1, 5)
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")
_COUNT = re.compile(r"[0-9]{1,18}")
_PROTOCOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


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

    @property
    def fault(self) -> str | None:
        """What is wrong with it, and what to do; None where nothing is."""
        times = (self.hot_us, self.ctx_us, self.low_us, self.high_us)
        if not all(math.isfinite(value) and value >= 0 for value in times):
            return f"times must be finite and not negative, not {times}; measure the kernel again"
        if max(times) > LARGEST_US:
            return f"a time of {max(times)} us is no kernel's; write microseconds"
        if self.hot_us < RESOLUTION_US:
            return f"hot_us is {self.hot_us}; times must be at least {RESOLUTION_US} us"
        if not self.low_us <= self.hot_us <= self.high_us:
            return (
                f"times must be low_us <= hot_us <= high_us, not {self.low_us}, {self.hot_us}, "
                f"{self.high_us}; measure the kernel again"
            )
        if self.ctx_us > self.high_us:
            return (
                f"ctx_us {self.ctx_us} is above high_us {self.high_us}, the upper end of both "
                "times; measure the kernel again"
            )
        if self.runs < 1:
            return f"runs is {self.runs}; it must be at least 1"
        if not is_date(self.date):
            return f"date is {self.date!r}; write it as 2026-01-31"
        if not _PROTOCOL.fullmatch(self.protocol):
            return f"protocol is {self.protocol!r}; write a protocol's name, such as table"
        return _kernel_fault(self.kernel)

    def to_fields(self) -> list[str]:
        """The line's fields, times rounded to 0.1 ns but ``hot_us`` never to nothing.

        Raises:
            ProfileError: the row is wrong; what is written can always be read.
        """
        hot = max(self.hot_us, RESOLUTION_US) if self.hot_us >= 0 else self.hot_us
        times = (hot, self.ctx_us, self.low_us, max(self.high_us, hot))
        numbers = [f"{value:.4f}" for value in times]
        hot, ctx, low, high = (float(text) for text in numbers)
        fault = replace(self, hot_us=hot, ctx_us=ctx, low_us=low, high_us=high).fault
        if fault is not None:
            raise ProfileError(f"the row of {self.kernel.key} cannot be written: {fault}")
        return [self.kernel.key, *numbers, str(self.runs), self.date, self.protocol]


def is_date(text: str) -> bool:
    """Whether ``text`` is a day of the calendar, such as 2026-01-31."""
    try:
        return len(text) == 10 and calendar_date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def check_columns(found: Sequence[str], where: str) -> None:
    """Hold a table's first line against :data:`COLUMNS`.

    Raises:
        ProfileError: a column is missing, unknown, or has the wrong unit.
    """
    if tuple(found) == COLUMNS:
        return
    start = f"{where}, line 1"
    for name in found:
        if name not in COLUMNS:
            free = [column for column in COLUMNS if column not in found]
            raise ProfileError(
                f"{start}: {name[:80]!r} is not a known column; {remedy(name, free or COLUMNS)}"
            )
    raise ProfileError(f"{start}: the columns must be {','.join(COLUMNS)}, in this order")


def parse_row(fields: Sequence[str], where: str) -> LatencyRow:
    """The row of a line's fields.

    Raises:
        ProfileError: a field is malformed or a figure impossible; the message names it.
    """
    if len(fields) != len(COLUMNS):
        raise ProfileError(
            f"{where}: truncated or altered, {len(fields)} fields instead of {len(COLUMNS)}; "
            "restore the line"
        )
    for name, text in zip(COLUMNS[_FIGURES], fields[_FIGURES], strict=True):
        if not _NUMBER.fullmatch(text):
            raise ProfileError(
                f"{where}: {name} is {text[:40]!r}; times must be finite and not negative: write "
                "microseconds such as 12.3456"
            )
    if not _COUNT.fullmatch(fields[5]):
        raise ProfileError(f"{where}: runs is {fields[5][:40]!r}; write a whole number")
    try:
        kernel = KernelSignature.parse(fields[0])
    except (ProfileError, RecursionError) as error:
        raise ProfileError(f"{where}: {str(error)[:400]}; restore the line") from error
    hot, ctx, low, high = (float(text) for text in fields[_FIGURES])
    row = LatencyRow(kernel, hot, ctx, low, high, int(fields[5]), fields[6], fields[7])
    if row.fault is not None:
        raise ProfileError(f"{where}: {row.fault}")
    return row


def _kernel_fault(kernel: KernelSignature) -> str | None:
    """What no kernel can have: control characters, negative sizes, nested or infinite values."""
    if not kernel.key.isprintable():
        return f"{kernel.key[:80]!r} holds characters that cannot be printed; restore the line"
    for tensor in (*kernel.inputs, *kernel.outputs):
        if isinstance(tensor, TensorType) and any(size < 0 for size in tensor.shape):
            return f"the shape {list(tensor.shape)} has a negative size; restore the line"
    for name, value in kernel.attributes:
        items: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
        for item in items:
            if not isinstance(item, int | float | str):
                return f"attribute {name} holds {item!r}; write numbers and texts"
            if isinstance(item, float) and not math.isfinite(item):
                return f"attribute {name} is {item}; it must be finite"
    return None
