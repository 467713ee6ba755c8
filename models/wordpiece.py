"""BERT's WordPiece tokeniser (lower case), for texts of the zoo: no dependency, the vocabulary from `tokenizer.json`.

Clean, lower, strip accents; split at white space and around punctuation; then from each word the longest piece in the
vocabulary, again and again, continuations written `##piece`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

LONGEST_WORD = 100


@dataclass(frozen=True)
class Encoded:
    """One text as a batch of one."""

    input_ids: npt.NDArray[np.int64]  # [1, length]
    attention_mask: npt.NDArray[np.int64]  # [1, length], 1 = token, 0 = padding
    tokens: int  # before truncation, with [CLS] and [SEP]


@dataclass(frozen=True)
class WordPiece:
    vocabulary: Mapping[str, int]

    @classmethod
    def from_file(cls, path: Path) -> WordPiece:
        return cls(json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"])

    def encode(self, text: str, length: int) -> Encoded:
        """[CLS] pieces [SEP], truncated or padded to `length`."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        ids = [self.vocabulary["[CLS]"], *pieces[: length - 2], self.vocabulary["[SEP]"]]
        row = np.full((1, length), self.vocabulary["[PAD]"], np.int64)
        row[0, : len(ids)] = ids
        return Encoded(row, (np.arange(length) < len(ids)).astype(np.int64)[None], len(pieces) + 2)

    def _pieces(self, word: str) -> list[int]:
        start, found = 0, []
        while start < len(word):
            prefix = "##" if start else ""
            stops = range(len(word), start, -1)
            stop = next((stop for stop in stops if prefix + word[start:stop] in self.vocabulary), None)
            if stop is None or len(word) > LONGEST_WORD:
                return [self.vocabulary["[UNK]"]]
            found.append(self.vocabulary[prefix + word[start:stop]])
            start = stop
        return found


def _words(text: str) -> Iterator[str]:
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    for chunk in plain.split():
        word = ""
        for c in chunk:
            if not _is_punctuation(c):
                word += c
                continue
            if word:
                yield word
            yield c
            word = ""
        if word:
            yield word


def _is_punctuation(c: str) -> bool:
    is_ascii_symbol = c.isascii() and not c.isalnum() and not c.isspace()
    return is_ascii_symbol or unicodedata.category(c).startswith("P")
