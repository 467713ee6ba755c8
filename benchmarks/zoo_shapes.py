"""Shapes for models of the zoo whose free axes nobody can guess and that have no data to take lengths from."""

from __future__ import annotations

from collections.abc import Mapping

SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "nudenet": {"images": (1, 3, 320, 320)},
    "ddddocr": {"input1": (1, 1, 64, 160)},
    "silero-vad": {"input": (1, 512), "state": (2, 1, 128)},
    "silero-vad-16k": {"input": (1, 512), "state": (2, 1, 128)},
}
