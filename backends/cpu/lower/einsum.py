"""Einsum as transpositions, reshapes, sums and one product per pair of operands."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from prunec.backends.cpu.lower.writer import Writer
from prunec.graph.shapes import dims


@dataclass(frozen=True)
class _Term:
    """One operand with a letter for each of its axes, none twice."""

    value: ir.Value
    letters: str
    sizes: dict[str, int]

    @property
    def shape(self) -> list[int]:
        return [self.sizes[letter] for letter in self.letters]


def einsum(w: Writer, node: ir.Node) -> ir.Value | None:
    """None where an operand has a letter twice (a diagonal), an ellipsis stands for broadcast axes, or for integers."""
    operands = [value for value in node.inputs if value is not None]
    ranks = [len(dims(value) or ()) for value in operands]
    parsed = _parsed(node.attributes.get_string("equation", "") or "", ranks)
    if parsed is None or any(value.dtype != ir.DataType.FLOAT for value in operands):
        return None
    inputs, output = parsed
    sizes: dict[str, int] = {}
    for letters, value in zip(inputs, operands, strict=True):
        for letter, n in zip(letters, dims(value) or (), strict=True):
            assert isinstance(n, int)
            if sizes.setdefault(letter, n) != n:
                return None
    terms = [_Term(value, letters, sizes) for value, letters in zip(operands, inputs, strict=True)]
    held = terms[0]
    for place, term in enumerate(terms[1:], 1):
        later = set(output).union(*(other.letters for other in terms[place + 1 :]))
        held = _product(w, held, term, later)
    return _ordered(w, _summed(w, held, set(output)), output).value


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], str] | None:
    """Letters of every operand and of the result, the ellipsis written out."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(ranks) or not all(re.fullmatch(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*", t) for t in (*inputs, right)):
        return None
    spare = [chr(code) for code in range(ord("α"), ord("α") + 24)]
    most = 0
    written = []
    for letters, rank in zip(inputs, ranks, strict=True):
        count = rank - len(letters.replace("...", ""))
        if count < 0 or ("..." not in letters and count):
            return None
        most = max(most, count)
        written.append(letters.replace("...", "".join(spare[24 - count :])))
    whole = "".join(spare[24 - most :])
    if not arrow:
        seen = "".join(inputs).replace("...", "")
        output = whole + "".join(sorted(letter for letter in set(seen) if seen.count(letter) == 1))
    else:
        output = right.replace("...", whole)
    if any(len(set(letters)) != len(letters) for letters in (*written, output)):
        return None
    return written, output


def _ordered(w: Writer, term: _Term, letters: str) -> _Term:
    if term.letters == letters:
        return term
    order = [term.letters.index(letter) for letter in letters]
    return _Term(w.transpose(term.value, order), letters, term.sizes)


def _summed(w: Writer, term: _Term, needed: set[str]) -> _Term:
    """Without the letters that nobody else has."""
    alone = [axis for axis, letter in enumerate(term.letters) if letter not in needed]
    if not alone:
        return term
    letters = "".join(letter for letter in term.letters if letter in needed)
    return _Term(w.reduce("ReduceSum", term.value, alone, keepdims=False), letters, term.sizes)


def _product(w: Writer, a: _Term, b: _Term, later: set[str]) -> _Term:
    """[batch, rows, inner] · [batch, inner, columns]: a letter in both is a batch where it is needed later."""
    a, b = _summed(w, a, later | set(b.letters)), _summed(w, b, later | set(a.letters))
    both = [letter for letter in a.letters if letter in b.letters]
    batch = "".join(letter for letter in both if letter in later)
    inner = "".join(letter for letter in both if letter not in later)
    rows = "".join(letter for letter in a.letters if letter not in both)
    columns = "".join(letter for letter in b.letters if letter not in both)
    sizes = a.sizes

    def count(letters: str) -> int:
        return math.prod(sizes[letter] for letter in letters)

    lead = [sizes[letter] for letter in batch]
    left = w.reshape(_ordered(w, a, batch + rows + inner).value, [*lead, count(rows), count(inner)])
    right = w.reshape(_ordered(w, b, batch + inner + columns).value, [*lead, count(inner), count(columns)])
    product = w.op("MatMul", [left, right], [*lead, count(rows), count(columns)])
    letters = batch + rows + columns
    return _Term(w.reshape(product, [sizes[letter] for letter in letters]), letters, sizes)
