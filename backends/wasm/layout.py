"""Names of the files of a package, for those who write and those who read them."""

from __future__ import annotations

FOLDER = "wasm"
MODULE = "model.wasm"
WEIGHTS = "model.weights"
DEMO = "demo"
"""The page, and in it the dense model's folder."""
DENSE = "dense"
