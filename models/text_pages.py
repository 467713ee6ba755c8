"""Rendered pages with the boxes of their text lines: the data of `ocr-det`, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunec.models.text_lines import font_files, need_pillow, paint, sentence

SIDE = 480
SIZES = (13, 30)
GAP = (10, 50)
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class TextPage:
    pixels: npt.NDArray[np.uint8]  # [480, 480, 3], RGB
    boxes: tuple[Box, ...]


def text_pages(words: Sequence[str], seed: int) -> Iterator[TextPage]:
    """An endless stream of pages, each a column of lines in several fonts and sizes."""
    need_pillow()
    from PIL import Image, ImageDraw, ImageFont

    fonts = font_files()
    rng = np.random.default_rng(seed)
    while True:
        ink = Image.new("L", (SIDE, SIDE), 0)
        pen = ImageDraw.Draw(ink)
        boxes: list[Box] = []
        top = int(rng.integers(*GAP))
        while True:
            file, size = fonts[rng.integers(len(fonts))], int(rng.integers(SIZES[0], SIZES[1] + 1))
            font = ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
            text = sentence(rng, words)
            left = int(rng.integers(8, 120))
            while font.getlength(text) > SIDE - left - 8 and " " in text:
                text = text.rsplit(" ", 1)[0]
            box = pen.textbbox((left, top), text, font=font)
            if box[3] > SIDE - 8 or box[2] > SIDE - 4:
                break
            pen.text((left, top), text, fill=255, font=font)
            boxes.append(box)
            top = int(box[3]) + int(rng.integers(*GAP))
        if boxes:
            yield TextPage(paint(np.asarray(ink, np.float32) / np.float32(255), rng), tuple(boxes))
