"""A vocabulary of word pieces, and how texts become rows of token ids with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autocompress.core.files import write_atomically
from autocompress.errors import DataError
from autocompress.evaluation.text.pieces import CONTINUES, learn_pieces
from autocompress.evaluation.text.words import words

#: The id that fills up short rows; models take it for "nothing here".
PADDING_ID = 0
PADDING, UNKNOWN = "[PAD]", "[UNK]"
_UNKNOWN_ID = 1
_SPECIAL = (PADDING, UNKNOWN)
#: Never given out here; other tokenisers take no vocabulary without them.
_RESERVED = ("[CLS]", "[SEP]", "[MASK]")
#: Longer words are unknown: they are links or noise, and cost quadratic time.
_LONGEST_WORD = 100
#: Words whose pieces are remembered.
_REMEMBERED = 1 << 17
#: The file that a vocabulary is saved as.
FILE = "vocabulary.txt"


class Tokenizer:
    """Words, cut into the longest pieces that the vocabulary knows, from left to right.

    That is WordPiece (Wu et al. 2016, arXiv:1609.08144), and a saved vocabulary has BERT's form (a
    token a line, its line its id), so that other tokenisers for BERT's uncased models can read it;
    set them to add no special tokens around a text.

    Args:
        tokens: "[PAD]" and "[UNK]" first, then pieces; those that go on with a word begin with
            "##". Their places are their ids.
        length: tokens in a row: shorter texts are filled up, longer ones cut off.

    Attributes:
        tokens: as given.
        length: as given.

    Raises:
        DataError: the tokens are no vocabulary, or the length is no positive number.
    """

    def __init__(self, tokens: Sequence[str], length: int) -> None:
        if tuple(tokens[: len(_SPECIAL)]) != _SPECIAL:
            raise DataError(
                f"a vocabulary begins with {' and '.join(_SPECIAL)}; this one begins with "
                f"{list(tokens[:2])}"
            )
        twice = [token for token, count in Counter(tokens).items() if count > 1]
        if twice:
            raise DataError(f"the vocabulary holds {twice[0]!r} more than once")
        bad = [t for t in tokens if not t.removeprefix(CONTINUES) or t.split() != [t]]
        if bad:
            raise DataError(f"the vocabulary holds {bad[0]!r}, which is no piece of a word")
        if length < 1:
            raise DataError(f"texts are to have {length} tokens; give at least 1")
        self.tokens = tuple(tokens)
        self.length = length
        self._ids = {token: i for i, token in enumerate(tokens)}
        self._longest = max(len(token) for token in tokens)
        self._met: dict[str, list[int]] = {}

    @classmethod
    def learned(cls, texts: Iterable[str], *, size: int, length: int | None = None) -> Tokenizer:
        """A vocabulary of the pieces that are most frequent in some texts.

        Args:
            texts: those of the training examples.
            size: tokens at the most, the five special ones included.
            length: tokens in a row; None takes what 99 in 100 of the texts fit into, rounded up
                to a multiple of 8.

        Raises:
            DataError: the texts hold no word, or there is no room for any token.
        """
        texts = list(texts)
        counts = Counter(word for text in texts for word in words(text))
        known = {word: n for word, n in counts.items() if len(word) <= _LONGEST_WORD}
        if not known:
            raise DataError(_no_words(counts))
        special = (*_SPECIAL, *_RESERVED)
        if size <= len(special):
            raise DataError(f"a vocabulary of {size} tokens holds no piece; give more")
        made = cls([*special, *learn_pieces(known, size - len(special))], length or 1)
        if length is None:
            made.length = made.length_for(texts)
        return made

    @classmethod
    def load(cls, path: str | Path, length: int) -> Tokenizer:
        """A vocabulary that was saved.

        Raises:
            DataError: the file cannot be read, or holds no vocabulary.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the vocabulary {path} cannot be read: {error}") from error
        return cls(text.removesuffix("\n").split("\n"), length)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary, a token a line.

        Raises:
            StorageError: the file cannot be written.
        """
        write_atomically(Path(path), "\n".join(self.tokens) + "\n")

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens, however many there are."""
        return [i for word in words(text) for i in self._pieces(word)]

    def length_for(self, texts: Iterable[str]) -> int:
        """Tokens that 99 in 100 of some texts fit into, rounded up to a multiple of 8."""
        needed = np.quantile([len(self.encode(text)) for text in texts], 0.99)
        return max(8, -(-int(np.ceil(needed)) // 8) * 8)

    def decode(self, ids: Iterable[int]) -> str:
        """Words with single spaces between them; padding is left out.

        Raises:
            DataError: an id that the vocabulary does not hold.
        """
        text = ""
        for i in ids:
            if not 0 <= i < len(self.tokens):
                raise DataError(f"there is no token {i}; the vocabulary holds {len(self.tokens)}")
            token = self.tokens[i]
            if i == PADDING_ID:
                continue
            text += token[len(CONTINUES) :] if token.startswith(CONTINUES) else f" {token}"
        return text.strip()

    def rows(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], int]:
        """Texts as ids, shape ``(len(texts), length)``, and how many of them were cut off.

        A text without any word becomes one unknown token: models average over the tokens of a row,
        and there has to be one.
        """
        found = np.full((len(texts), self.length), PADDING_ID, dtype=np.int64)
        cut = 0
        for row, text in zip(found, texts, strict=True):
            ids = self.encode(text) or [_UNKNOWN_ID]
            cut += len(ids) > self.length
            kept = ids[: self.length]
            row[: len(kept)] = kept
        return found, cut

    def _pieces(self, word: str) -> list[int]:
        """A word's ids, remembered: few words make up most of a text."""
        found = self._met.get(word)
        if found is None:
            if len(self._met) >= _REMEMBERED:
                self._met.clear()
            found = self._met[word] = self._cut(word)
        return found

    def _cut(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [_UNKNOWN_ID]
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = CONTINUES if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                known = self._ids.get(prefix + word[start:end])
                if known is not None:
                    break
            else:
                return [_UNKNOWN_ID]
            found.append(known)
            start = end
        return found


def _no_words(counts: Counter[str]) -> str:
    """Why there is nothing to learn from."""
    if not counts:
        return "the texts hold no word; there is nothing to learn a vocabulary from"
    return (
        f"every word of the texts has more than {_LONGEST_WORD} characters, such as "
        f"{min(counts, key=len)[:20]!r}...; words end at white space, punctuation and Chinese "
        "characters: divide texts in other scripts without spaces into words first"
    )
