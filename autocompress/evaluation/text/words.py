"""Texts as words, as BERT's uncased models take them apart."""

from __future__ import annotations

import unicodedata

#: ASCII characters that Unicode does not call punctuation, but that stand alone all the same.
_SYMBOLS = frozenset("$+<=>^`|~")


#: First and last code points of Unicode's blocks of ideographs that Chinese and Japanese share.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a text: lower case, no accents; punctuation and Chinese characters stand alone.

    Control characters and halves of surrogate pairs vanish, and any white space divides words. The
    rules are those of BERT's uncased tokeniser (Devlin et al. 2019, arXiv:1810.04805).
    """
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(_spelled(character) for character in plain).split()


def _spelled(character: str) -> str:
    """What becomes of one character."""
    if character in "\t\n\r":
        return " "
    kind = unicodedata.category(character)
    if kind in {"Mn", "Cc", "Cf", "Cs"} or character == "\ufffd":
        return ""
    if kind.startswith("P") or character in _SYMBOLS or _is_ideograph(character):
        return f" {character} "
    return " " if kind == "Zs" else character


def _is_ideograph(character: str) -> bool:
    point = ord(character)
    return point >= 0x3400 and any(first <= point <= last for first, last in _IDEOGRAPHS)
