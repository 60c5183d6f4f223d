"""Sections that read themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from autocompress.errors import ProfileError
from autocompress.hardware.profile_sections import SECTIONS, Section
from autocompress.hardware.toml_document import Place, TomlDocument


@dataclass(frozen=True)
class Fan:
    """A section with a codec of its own."""

    rpm: int

    @classmethod
    def from_toml(cls, value: dict[str, Any]) -> Fan:
        """The inverse of :meth:`to_toml`."""
        return cls(int(value["rpm"]))

    def to_toml(self) -> dict[str, Any]:
        """A table."""
        return {"rpm": str(self.rpm)}


SECTION = Section("fan", "fan", Fan)


def test_a_section_with_its_own_codec() -> None:
    document = TomlDocument.parse(b'a = 1\n[fan]\nrpm = "9"\n', "file.toml")
    at = Place(document) / "fan"
    found = SECTION.read(document.value["fan"], at, complete=True)
    assert found == Fan(9)
    assert SECTION.write(found) == {"rpm": "9"}
    assert SECTION.write(None) is None
    for wrong in ({}, {"rpm": "fast"}, 3):
        with pytest.raises(ProfileError, match=r"file\.toml, line 2: fan is "):
            SECTION.read(wrong, at, complete=True)


def test_every_section_has_a_name_and_an_attribute_of_its_own() -> None:
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    assert len({section.attribute for section in SECTIONS}) == len(SECTIONS)
