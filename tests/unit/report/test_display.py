from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from rich.console import Console

from autocompress.core.events import Event
from autocompress.errors import RequestError
from autocompress.report.display import (
    JsonDisplay,
    LiveDisplay,
    PlainDisplay,
    SilentDisplay,
    make_display,
)

BASELINE = {"name": "fp32", "accuracy": 0.854, "latency_ms": 0.444, "size_bytes": 1_096_000}
EVENTS = [
    Event("inspect", "note", "", {"run_dir": "runs/x"}),
    Event("baseline", "stage_started", "measuring the original"),
    Event("baseline", "stage_finished", "measured", {"seconds": 4.2, "rows": [BASELINE]}),
    Event("search", "stage_started", "searching"),
    Event("search", "decision", "dropped a fidelity"),
    Event("search", "progress", "best 3.1x", {"done": 3, "total": 120}),
    Event("search", "trial", "trial 4", {"done": 4, "total": 120}),
    Event("search", "stage_finished", "120 trials", {"seconds": 380.0}),
    Event("report", "finished", "5 models"),
]


def _clock(step: float) -> Callable[[], float]:
    ticks: Iterator[int] = iter(range(10_000))
    return lambda: step * next(ticks)


def _plain(step: float) -> list[str]:
    stream = StringIO()
    with PlainDisplay(stream, clock=_clock(step)) as display:
        for event in EVENTS:
            display(event)
    return stream.getvalue().splitlines()


def test_plain_is_one_line_a_stage_when_all_goes_fast() -> None:
    assert _plain(0.001) == [
        "run folder  runs/x",
        "resume      autocompress resume runs/x",
        "baseline           4.2 s  measured",
        "  fp32    85.4 %  0.444 ms  1.10 MB",
        "search        6 min 20 s  120 trials",
        "5 models",
    ]


def test_a_stage_without_a_message_of_its_own_says_what_it_decided() -> None:
    stream = StringIO()
    with PlainDisplay(stream) as display:
        display(Event("price", "stage_started", "price"))
        for sentence in ("769 kernels are within reach.", "a detail", "The table is 4 % off."):
            display(Event("price", "decision", sentence))
        display(Event("price", "stage_finished", "price", {"seconds": 6.8}))
        display(Event("search", "stage_started", "search"))
        display(Event("search", "stage_finished", "search", {"seconds": 0.1}))
    assert stream.getvalue().splitlines() == [
        "price              6.8 s  769 kernels are within reach.",
        "                          The table is 4 % off.",
        "search             0.1 s",
    ]


def test_plain_says_something_every_thirty_seconds() -> None:
    lines = [line for line in _plain(40.0) if "/120" in line]
    assert [line.split("(")[0].split() for line in lines] == [
        ["search", "3/120", "best", "3.1x"],
        ["search", "4/120", "trial", "4"],
    ]


def test_json_is_an_object_a_line() -> None:
    stream = StringIO()
    with JsonDisplay(stream) as display:
        for event in EVENTS:
            display(event)
        display(Event("search", "trial", "nan", {"accuracy": float("nan")}))
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(r["stage"], r["kind"]) for r in rows[:-1]] == [(e.stage, e.kind) for e in EVENTS]
    assert rows[-1]["data"] == {"accuracy": None}


@pytest.mark.parametrize("terminal", [True, False])
def test_live_keeps_what_matters(terminal: bool) -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, highlight=False)
    with LiveDisplay(console) as display:
        for event in EVENTS:
            display(event)
    text = stream.getvalue()
    for kept in ("autocompress resume runs/x", "measured", "120 trials", "5 models", "85.4 %"):
        assert kept in text


def test_messages_are_neither_markup_nor_control_sequences() -> None:
    stream = StringIO()
    with LiveDisplay(Console(file=stream, width=100)) as display:
        display(Event("search", "note", "[red]x[/red] \x1b[2J"))
    assert "[red]x[/red]" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("live", LiveDisplay),
        ("plain", PlainDisplay),
        ("json", JsonDisplay),
        ("none", SilentDisplay),
        (False, SilentDisplay),
        ("auto", PlainDisplay),  # standard error is no terminal here
        (True, PlainDisplay),
    ],
    ids=str,
)
def test_make_display(mode: str | bool, kind: type) -> None:
    assert type(make_display(mode)) is kind


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(RequestError, match="progress is 'loud'; use one of auto, live"):
        make_display("loud")
