"""Texts as words, as BERT's uncased models take them apart."""

from __future__ import annotations

import unicodedata

#: ASCII characters that Unicode does not call punctuation, but that stand alone all the same.
_SYMBOLS = frozenset("$+<=>^`|~")


def words(text: str) -> list[str]:
    """The words of a text: lower case, without accents, each punctuation mark on its own.

    Control characters and halves of surrogate pairs vanish, and any white space divides words. The
    rules are those of BERT's uncased tokeniser (Devlin et al. 2019, arXiv:1810.04805), but for
    Chinese characters, which are not set apart.
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
    if kind.startswith("P") or character in _SYMBOLS:
        return f" {character} "
    return " " if kind == "Zs" else character
