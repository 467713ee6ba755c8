"""Glosses and examples of WordNet 3.0 (Princeton University), from Debian's `wordnet-base`.

A line of `data.POS` ends with `| definition; another definition; "an example"; "another"`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from prunec.models.fetch import fetch
from prunec.models.packages import WORDNET

PartOfSpeech = Literal["noun", "verb"]


@dataclass(frozen=True)
class Sense:
    definition: str
    examples: tuple[str, ...]


@cache
def senses(part: PartOfSpeech) -> tuple[Sense, ...]:
    """Every synset of the part of speech, in file order."""
    path = fetch(WORDNET) / f"usr/share/wordnet/data.{part}"
    lines = path.read_text(encoding="latin-1").splitlines()
    return tuple(_sense(line.split(" | ", 1)[1]) for line in lines if not line.startswith(" "))


def _sense(gloss: str) -> Sense:
    examples = tuple(example.strip() for example in re.findall(r'"([^"]+)"', gloss))
    definition = re.sub(r'"[^"]*"', "", gloss).strip(" ;:")
    return Sense(re.sub(r"[;:\s]*;[;:\s]*", "; ", definition), examples)
