"""Shows a running search: consumers of :class:`autocompress.core.events.Event`.

Displays write to standard error, so that standard output holds results only; :class:`JsonDisplay`
writes to standard output, for it *is* the result there.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from autocompress.core.events import Event
from autocompress.core.json_values import finite
from autocompress.errors import RequestError, StorageError
from autocompress.report import units
from autocompress.report.run_folder import read_run, rows_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

MODES = ("auto", "live", "plain", "json", "none")
_NAME_WIDTH = 11


class Display(ABC):
    """An observer of a run, to be closed when it ends.

    Call it with every event, from one thread. :meth:`close` may be called twice; a ``finished``
    event closes it too.
    """

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:  # noqa: B027 - most displays hold nothing
        """Give back the terminal."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SilentDisplay(Display):
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""


class JsonDisplay(Display):
    """One JSON object a line: time, stage, kind, message, data."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to ``stream``; standard output when None."""
        self._stream = stream if stream is not None else sys.stdout

    def __call__(self, event: Event) -> None:
        """Write one line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps(finite({"time": now} | event.to_json()), allow_nan=False)
        print(line, file=self._stream, flush=True)


class PlainDisplay(Display):
    """Lines for logs: one a finished stage, and at most one of progress per ``every`` seconds."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        every: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write to ``stream``; standard error when None."""
        self._stream = stream if stream is not None else sys.stderr
        self._every = every
        self._clock = clock
        self._started = self._last = clock()
        self._memory = Memory()

    def __call__(self, event: Event) -> None:
        """Write a line when the event deserves one."""
        block = self._memory.lines(event)
        if block:
            self._say(block)
        elif event.kind == "stage_started":
            self._started = self._last = self._clock()
        elif event.kind in {"progress", "trial"} and self._clock() - self._last >= self._every:
            passed = units.seconds(self._clock() - self._started)
            self._say(f"{event.stage:<{_NAME_WIDTH}} {_progress(event)} ({passed})")

    def _say(self, text: str) -> None:
        self._last = self._clock()
        print(text, file=self._stream, flush=True)


class LiveDisplay(Display):
    """One live line for the stage at work; a line that stays for every finished one."""

    def __init__(self, console: Console | None = None) -> None:
        """Draw on ``console``; the terminal of standard error when None."""
        from rich.console import Console
        from rich.spinner import Spinner

        self._console = console if console is not None else Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._started = time.monotonic()
        self._stage = self._progress = ""
        self._memory = Memory()

    def __call__(self, event: Event) -> None:
        """Update the live line, or print one that stays."""
        from rich.text import Text

        if event.kind in {"stage_finished", "finished"}:
            self._stage = self._progress = ""
            self.close()
        block = self._memory.lines(event)
        if block:
            self._console.print(Text(block), soft_wrap=True)
        if event.kind == "stage_started":
            self._started = time.monotonic()
            message = "" if event.message == event.stage else event.message
            self._stage, self._progress = event.stage, units.printable(message)
        elif event.kind in {"progress", "trial"}:
            self._stage, self._progress = event.stage, _progress(event)
        self._show()

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self) -> None:
        from rich.live import Live

        if self._stage and self._live is None:
            self._live = Live(
                get_renderable=self._line,
                console=self._console,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()

    def _line(self) -> RenderableType:
        from rich.text import Text

        passed = units.seconds(time.monotonic() - self._started)
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f" {self._stage:<{_NAME_WIDTH - 2}} ", style="bold")
        text.append(f"{passed}  ", style="dim")
        text.append(self._progress)
        self._spinner.update(text=text)
        return self._spinner


def make_display(mode: str | bool = "auto") -> Display:
    """The display of that name.

    Args:
        mode: one of :data:`MODES`; "auto" (or True) is live on a terminal and plain elsewhere,
            "none" (or False) shows nothing.

    Raises:
        RequestError: there is no such mode.
    """
    if mode is True:
        mode = "auto"
    if mode is False:
        mode = "none"
    if mode == "auto":
        mode = "live" if sys.stderr.isatty() else "plain"
    makers: Mapping[str, Callable[[], Display]] = {
        "live": LiveDisplay,
        "plain": PlainDisplay,
        "json": JsonDisplay,
        "none": SilentDisplay,
    }
    if mode not in makers:
        raise RequestError(f"progress is {mode!r}; use one of {', '.join(MODES)}, True or False")
    return makers[mode]()


class Memory:
    """Turns events into what stays on the screen; remembers a stage's decisions until it ends."""

    def __init__(self) -> None:
        self._stage = ""
        self._decisions: list[str] = []

    def lines(self, event: Event) -> str:
        """Lines without control characters, maybe none."""
        if event.kind == "stage_started":
            self._stage, self._decisions = event.stage, []
        elif event.kind == "decision" and event.stage == self._stage:
            self._decisions.append(event.message)
        if event.kind not in {"note", "stage_finished", "finished"}:
            return ""
        if event.kind == "stage_finished":
            parts = self._stage_lines(event)
        elif event.kind == "finished":
            parts = [_closing_line(event)]
        elif "run_dir" in event.data:
            parts = run_lines(event.data["run_dir"])
        else:
            parts = [event.message] if event.message else []
        if isinstance(event.data.get("plan"), Mapping):
            parts += plan_lines(event.data["plan"])
        parts += _row_lines(rows_of(event.data, "rows"))
        return units.printable("\n".join(parts))

    def _stage_lines(self, event: Event) -> list[str]:
        """The stage, its time, and what it said: its message, or its first and last decision."""
        seconds = event.data.get("seconds")
        took = units.seconds(seconds) if isinstance(seconds, int | float) else ""
        said = [event.message] if event.message not in {"", event.stage} else self._decisions
        told = list(dict.fromkeys([*said[:1], *said[-1:]])) or [""]
        heads = [f"{event.stage:<{_NAME_WIDTH}} {took:>12}", *[" " * (_NAME_WIDTH + 13)] * 2]
        return [f"{head}  {line}".rstrip() for head, line in zip(heads, told, strict=False)]


def _closing_line(event: Event) -> str:
    folder = event.data.get("run_dir")
    return f"{event.message}: {folder}" if folder else event.message


def run_lines(run_dir: object) -> list[str]:
    """The run folder, and the command that goes on with it."""
    try:
        command = read_run(str(run_dir)).resume_command
    except StorageError:  # nothing there yet to say whose model it is
        command = f"autocompress resume {shlex.quote(str(run_dir))}"
    return [f"run folder  {run_dir}", f"resume      {command}"]


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """A plan as lines: its sentences, then its stages."""
    sentences = plan.get("sentences")
    lines = [str(s) for s in sentences] if isinstance(sentences, list) else []
    for stage in rows_of(plan, "stages"):
        planned = stage.get("seconds")
        spent = units.seconds(planned) if isinstance(planned, int | float) else units.MISSING
        name = str(stage.get("name", ""))
        lines.append(f"  {name:<{_NAME_WIDTH}} {spent:>10}  {stage.get('note') or ''}".rstrip())
    return lines


def _row_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [str(row.get("name") or row.get("id") or "") for row in rows]
    width = max((len(name) for name in names), default=0)
    return [f"  {name:<{width}}  {_figures(row)}" for name, row in zip(names, rows, strict=True)]


def _figures(row: Mapping[str, Any]) -> str:
    def figure(key: str) -> float | None:
        value = row.get(key)
        return float(value) if isinstance(value, int | float) else None

    accuracy = figure("accuracy")
    share = accuracy is not None and 0 <= accuracy <= 1
    shown = units.percent(accuracy) if share else units.number(accuracy)
    spread = units.interval(figure("latency_low_ms"), figure("latency_high_ms"))
    latency = f"{units.milliseconds(figure('latency_ms'))} ms {spread}".rstrip()
    return f"{shown:>8}  {latency}  {units.size(figure('size_bytes'))}"


def _progress(event: Event) -> str:
    done, total = event.data.get("done"), event.data.get("total")
    counted = ""
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        counted = f"{done}/{total}  "
    elif isinstance(done, int):
        counted = f"{done}  "
    return " ".join(units.printable(f"{counted}{event.message}").split())
