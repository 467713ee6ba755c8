"""Names of the files of a compiled model, for those who write and those who read them."""

from __future__ import annotations

FOLDER = "cpu"
PARTS = "parts.json"
LIBRARY = "libmodel.so"
WEIGHTS = "model.weights"
HEADER = "prunec.h"
EXAMPLE = "example.c"
PART_MODEL = "part.onnx"
