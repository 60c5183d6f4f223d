"""Texts to token ids and back, and the vocabulary that is learned for it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import DataError
from autocompress.evaluation.text.pieces import CONTINUES, learn_pieces
from autocompress.evaluation.text.tokenizer import PADDING, PADDING_ID, UNKNOWN, Tokenizer
from autocompress.evaluation.text.words import words

TEXTS = ["the cat sat on the mat", "the dog sat", "a cat and a dog", "cats, dogs & mats!"]
PLAIN = st.text(st.sampled_from("abcdegmnost ,!&"), max_size=40)


def learned(size: int = 60, length: int | None = 8) -> Tokenizer:
    return Tokenizer.learned(TEXTS, size=size, length=length)


def test_words() -> None:
    assert words("Don't  STOP\tthe Café—now\u200b!\x00") == [
        "don", "'", "t", "stop", "the", "cafe", "—", "now", "!",
    ]  # fmt: skip


def test_ideographs_are_words_of_their_own() -> None:
    """Of any block, as BERT sets them apart; other scripts of the region are not."""
    assert words("我爱NLP和猫。") == ["我", "爱", "nlp", "和", "猫", "。"]
    assert words("\U00020000x\u3400") == ["\U00020000", "x", "\u3400"]
    assert words("ひらがな") == ["ひらかな"]  # whose voicing mark is an accent
    learnt = Tokenizer.learned(["我爱猫" * 60, "猫爱我"], size=20, length=4)
    assert learnt.decode(learnt.encode("我猫")) == "我 猫"


@given(st.text(max_size=60))
def test_words_are_words_again(text: str) -> None:
    found = words(text)
    assert words(" ".join(found)) == found
    assert all(word and not word.isspace() for word in found)


@given(PLAIN)
@settings(max_examples=60)
def test_decoding_gives_the_words_back(text: str) -> None:
    tokenizer = Tokenizer.learned([text, "abcdegmnost , ! &" * 2] * 2, size=200, length=4)
    letters = set("abcdegmnost,!&")
    known = [w for w in words(text) if UNKNOWN not in tokenizer.decode(tokenizer.encode(w))]
    assert tokenizer.decode(tokenizer.encode(text)).split().count(UNKNOWN) == len(
        words(text)
    ) - len(known)
    assert tokenizer.decode(tokenizer.encode(" ".join(known))) == " ".join(known)
    assert all(set(word) <= letters for word in known)


@given(st.text(max_size=80))
def test_any_text_has_a_row(text: str) -> None:
    tokenizer = learned()
    rows, cut = tokenizer.rows([text])
    ids = tokenizer.encode(text)
    assert rows.shape == (1, 8)
    assert rows.dtype == np.int64
    assert 0 <= rows.min() <= rows.max() < len(tokenizer)
    assert cut == (len(ids) > 8)
    kept = rows[0][rows[0] != PADDING_ID]
    assert kept.tolist() == (ids[:8] or [tokenizer.tokens.index(UNKNOWN)])
    assert (rows[0, len(kept) :] == PADDING_ID).all()


def test_a_vocabulary_holds_frequent_words_whole() -> None:
    tokenizer = learned()
    assert tokenizer.tokens[:2] == (PADDING, UNKNOWN)
    assert [tokenizer.tokens[i] for i in tokenizer.encode("the cat")] == ["the", "cat"]


def test_a_word_with_an_unknown_character_is_unknown() -> None:
    tokenizer = learned()
    assert tokenizer.decode(tokenizer.encode("the žluťoučký☂ cat ☂")) == "the [UNK] cat [UNK]"
    assert tokenizer.decode(tokenizer.encode("a" * 101)) == UNKNOWN


def test_the_longest_piece_comes_first() -> None:
    tokenizer = Tokenizer([PADDING, UNKNOWN, "a", "ab", "##b", "##bc", "##c", "abc"], 4)
    assert tokenizer.encode("abcbc abb") == [7, 5, 3, 4]


def test_the_length_is_what_most_texts_need() -> None:
    texts = ["the cat"] * 99 + ["the cat " * 40]
    assert Tokenizer.learned(texts, size=40).length == 8
    assert Tokenizer.learned(["the cat " * 20] * 3, size=40).length == 40


def test_it_is_the_same_every_time_and_saved(tmp_path: Path) -> None:
    first, second = learned(), Tokenizer.learned(list(reversed(TEXTS)), size=60, length=8)
    assert first.tokens == second.tokens
    first.save(tmp_path / "vocabulary.txt")
    again = Tokenizer.load(tmp_path / "vocabulary.txt", 8)
    assert again.tokens == first.tokens
    assert again.rows(TEXTS)[0].tolist() == first.rows(TEXTS)[0].tolist()


def test_others_read_the_vocabulary(tmp_path: Path) -> None:
    """Hugging Face's tokenisers cut texts up in the same way."""
    tokenizers = pytest.importorskip("tokenizers")
    ours = learned()
    ours.save(tmp_path / "vocabulary.txt")
    vocabulary = tokenizers.models.WordPiece.read_file(str(tmp_path / "vocabulary.txt"))
    theirs = tokenizers.BertWordPieceTokenizer(vocabulary, lowercase=True)
    for text in (*TEXTS, "Cats sat, and thé dogs; matted!", "☂ a"):
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(1, 50), min_size=1))
@settings(max_examples=60)
def test_joined_pieces_are_the_most_frequent_pairs(counts: dict[str, int]) -> None:
    """The counts that are kept while joining are those of counting anew."""
    pieces = learn_pieces(counts, 30)
    split = {word: [word[0], *(CONTINUES + c for c in word[1:])] for word in counts}
    letters = {part for parts in split.values() for part in parts}
    for piece in pieces:
        if piece in letters:
            continue
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        assert best[0] + best[1].removeprefix(CONTINUES) == piece
        assert pairs[best] >= 2
        for word, parts in split.items():
            split[word] = _merged(parts, best, piece)


def _merged(parts: list[str], pair: tuple[str, str], piece: str) -> list[str]:
    made: list[str] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            made.append(piece)
            i += 2
        else:
            made.append(parts[i])
            i += 1
    return made


@pytest.mark.parametrize(
    ("tokens", "length", "said"),
    [
        (["a", "b"], 4, "begins with"),
        ([PADDING, UNKNOWN, "a", "a"], 4, "'a' more than once"),
        ([PADDING, UNKNOWN, ""], 4, "no piece of a word"),
        ([PADDING, UNKNOWN, "a b"], 4, "'a b'"),
        ([PADDING, UNKNOWN, "##"], 4, "no piece of a word"),
        ([PADDING, UNKNOWN, "a"], 0, "0 tokens"),
    ],
)
def test_what_is_no_vocabulary(tokens: list[str], length: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Tokenizer(tokens, length)


def test_what_cannot_be_learned_or_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no word"):
        Tokenizer.learned(["", " \n"], size=10)
    with pytest.raises(DataError, match=r"more than 100 characters, such as 'ภาษา.*into words"):
        Tokenizer.learned(["ภาษา" * 40], size=10)
    with pytest.raises(DataError, match="holds no piece"):
        Tokenizer.learned(TEXTS, size=2)
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(tmp_path / "nowhere.txt", 4)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(tmp_path / "binary.txt", 4)
    with pytest.raises(DataError, match="no token 999"):
        learned().decode([999])


def test_words_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autocompress.evaluation.text.tokenizer._REMEMBERED", 2)
    tokenizer = learned()
    texts = ["the cat", "the dog sat", "cat the the dog"] * 2
    fresh = [learned().encode(text) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == fresh
    assert len(tokenizer._met) <= 2
