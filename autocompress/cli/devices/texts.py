"""Values that the commands of ``autocompress devices`` are given as texts."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.errors import RequestError


def input_shape(text: str) -> tuple[int, ...]:
    """``(3, 32, 32)`` from ``"3x32x32"``, and ``(64,)`` from ``"64@8192"``.

    Raises:
        RequestError: it is no shape.
    """
    parts = text.lower().partition("@")[0].split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise RequestError(
            f"--input is {text!r}; write the shape of one input, such as 3x32x32, or 64@8192 for "
            "64 token ids below 8192"
        )
    return tuple(int(part) for part in parts)


def vocabulary(text: str) -> int | None:
    """How many token ids there are: 8192 of ``"64@8192"``; None of ``"3x32x32"``.

    Raises:
        RequestError: it is no such number.
    """
    _, at, count = text.partition("@")
    if not at:
        return None
    if not count.isdecimal() or int(count) < 2:
        raise RequestError(f"--input is {text!r}; behind @ write how many token ids there are")
    return int(count)


def thread_counts(text: str) -> tuple[int, ...]:
    """``(1, 2)`` from ``"1,2"``.

    Raises:
        RequestError: it is no list of numbers of threads.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in parts):
        raise RequestError(f"--threads is {text!r}; write numbers by commas, such as 1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


def none_given(options: Mapping[str, object], remedy: str) -> None:
    """Refuse options that the rest of the command does not heed.

    Args:
        options: values by option; None: not given.
        remedy: what they are for, and what to do.

    Raises:
        RequestError: one was given.
    """
    for name, value in options.items():
        if value is not None:
            shown = ",".join(map(str, value)) if isinstance(value, list) else value
            raise RequestError(f"{name} is {shown}; {remedy}")
