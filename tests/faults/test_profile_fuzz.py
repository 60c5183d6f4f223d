"""Damaged profiles: every one is refused with a message, or proven to say what it said before."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autocompress.errors import ProfileError, RequestError
from autocompress.hardware import HardwareProfile, load_profile
from autocompress.hardware.archive import archive_bytes
from autocompress.hardware.profile import PROFILE_FILE, TABLE_FILE
from autocompress.hardware.profile_writing import profile_texts
from tests.unit.hardware.hostile_zips import hostile_zips
from tests.unit.hardware.profile_files import full_profile, same

ARCHIVE = "x.acprofile"
Case = tuple[str, bytes]
_UNITS = {"us": "ms", "ms": "us", "mb": "kb", "bytes": "mb", "mhz": "ghz"}


def _contents() -> dict[str, bytes]:
    made = full_profile()
    return {**profile_texts(made), ARCHIVE: archive_bytes(made)}


CONTENTS = _contents()


def _flipped(name: str, count: int) -> Iterator[Case]:
    """One bit is another."""
    raw, rng = CONTENTS[name], random.Random(f"flip {name}")
    for position in rng.sample(range(8 * len(raw)), count):
        changed = bytearray(raw)
        changed[position // 8] ^= 1 << position % 8
        yield name, bytes(changed)


def _cut(name: str, count: int) -> Iterator[Case]:
    """The end, or a piece in the middle, is missing."""
    raw, rng = CONTENTS[name], random.Random(f"cut {name}")
    for index in range(count):
        start, end = sorted(rng.sample(range(len(raw)), 2))
        yield name, raw[:start] if index % 2 else raw[:start] + raw[end:]


def _swapped(name: str, count: int) -> Iterator[Case]:
    """Two lines have changed places."""
    rng = random.Random(f"swap {name}")
    for _ in range(count):
        lines = CONTENTS[name].splitlines(keepends=True)
        i, j = rng.sample(range(len(lines)), 2)
        lines[i], lines[j] = lines[j], lines[i]
        yield name, b"".join(lines)


def _without_a_line(name: str, _: int) -> Iterator[Case]:
    """Each line in turn is missing: keys, headers, rows."""
    lines = CONTENTS[name].splitlines(keepends=True)
    for index in range(len(lines)):
        yield name, b"".join(lines[:index] + lines[index + 1 :])


def _twice(name: str, _: int) -> Iterator[Case]:
    """Each line in turn is there twice."""
    lines = CONTENTS[name].splitlines(keepends=True)
    for index in range(len(lines)):
        yield name, b"".join([*lines[: index + 1], *lines[index:]])


def _wrong_units(name: str, _: int) -> Iterator[Case]:
    """Each name with a unit in turn names another one; there is no seal that would notice."""
    raw = CONTENTS[name].partition(b"[seal]")[0]
    for index, line in enumerate(lines := raw.decode().splitlines(keepends=True)):
        keys = line.strip().split(",") if name == TABLE_FILE else [line.partition(" =")[0]]
        for key in keys if name == PROFILE_FILE or index == 0 else []:
            unit = _UNITS.get(key.rpartition("_")[2])
            if unit is not None:
                other = key[: len(key) - len(key.rpartition("_")[2])] + unit
                changed = line.replace(key, other, 1)
                yield name, "".join([*lines[:index], changed, *lines[index + 1 :]]).encode()


def _hostile(name: str, _: int) -> Iterator[Case]:
    """Path traversal, links, bombs, names twice."""
    for _name, raw, _words in hostile_zips():
        yield name, raw


FAMILIES: list[tuple[Callable[[str, int], Iterator[Case]], str, int]] = [
    (_flipped, PROFILE_FILE, 150),
    (_flipped, TABLE_FILE, 100),
    (_flipped, ARCHIVE, 150),
    (_cut, PROFILE_FILE, 60),
    (_cut, TABLE_FILE, 40),
    (_cut, ARCHIVE, 40),
    (_swapped, PROFILE_FILE, 60),
    (_swapped, TABLE_FILE, 40),
    (_without_a_line, PROFILE_FILE, 0),
    (_without_a_line, TABLE_FILE, 0),
    (_twice, PROFILE_FILE, 0),
    (_twice, TABLE_FILE, 0),
    (_wrong_units, PROFILE_FILE, 0),
    (_wrong_units, TABLE_FILE, 0),
    (_hostile, ARCHIVE, 0),
]


def _outcome(folder: Path, name: str, raw: bytes, original: HardwareProfile) -> str:
    """Either "refused" or "harmless"; anything else is a failure of the test."""
    (folder / name).write_bytes(raw)
    try:
        found = load_profile(folder / name if name == ARCHIVE else folder)
    except (ProfileError, RequestError) as error:
        message = str(error)
    else:
        assert same(found, original)
        message = ""
    finally:
        (folder / name).write_bytes(CONTENTS[name])
    assert not message or (name in message and len(message) < 2000)
    return "refused" if message else "harmless"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "name", "count"),
    [pytest.param(*family, id=f"{family[0].__name__}-{family[1]}") for family in FAMILIES],
)
def test_damage_is_refused_or_harmless(
    folder: Path,
    damage: Callable[[str, int], Iterator[Case]],
    name: str,
    count: int,
) -> None:
    original = full_profile()
    tally = Counter(_outcome(folder, n, raw, original) for n, raw in damage(name, count))
    print(dict(tally))  # pytest -s shows the figures
    assert tally["refused"] > 0
    assert same(load_profile(folder), original)
    if damage in (_wrong_units, _hostile):
        assert tally["harmless"] == 0


def test_there_are_enough_cases() -> None:
    assert sum(len(list(damage(name, count))) for damage, name, count in FAMILIES) >= 500


def test_wrong_units_say_so(folder: Path) -> None:
    for name, raw in [*_wrong_units(PROFILE_FILE, 0), *_wrong_units(TABLE_FILE, 0)]:
        (folder / name).write_bytes(raw)
        with pytest.raises(ProfileError, match=r"line \d+: .*multiply the figure by"):
            load_profile(folder)
        (folder / name).write_bytes(CONTENTS[name])
