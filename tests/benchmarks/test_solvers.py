"""The table of solvers: ratios only to methods that were run."""

from __future__ import annotations

from benchmarks.solvers import table


def test_ratios_are_to_what_was_run() -> None:
    found = table({"case": {"SparseGPT": [0.2, 0.4], "ours": [0.1, 0.2]}}, ["SparseGPT", "Wanda"])
    assert "| ours ÷ SparseGPT | 0.500 ± 0.000 |" in found and "Wanda" not in found
    assert "÷" not in table({"case": {"SparseGPT": [0.2]}}, ["SparseGPT"])
