"""Rendered lines of text, 48 pixels high: the data of `ocr-rec`, drawn from a seed.

One to three words (or a number) in one of seven DejaVu fonts at 22–32 pixels, dark on light or light on dark, turned by
up to 1.2°, blurred, with a gradient and Gaussian noise: hard enough that the dense model reads about five lines of six.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunec.diagnostics import PrunecError
from prunec.models.fetch import fetch
from prunec.models.packages import DEJAVU_MONO, DEJAVU_SANS, DEJAVU_SERIF

if TYPE_CHECKING:
    pass

HEIGHT, WIDTH, MARGIN = 48, 320, 8
SIZES = (22, 32)
MAX_DEGREES = 1.2
BLUR = (0.3, 1.0)
CONTRAST = (90, 190)
NOISE = (2.0, 12.0)


@dataclass(frozen=True)
class TextLine:
    text: str
    pixels: npt.NDArray[np.uint8]  # [48, 320, 3], RGB


def need_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise PrunecError(
            "PC705", "this zoo model's data is drawn or read with Pillow, which is not installed",
            hint="pip install 'prunec[zoo]'",
        ) from error  # fmt: skip


def font_files() -> list[Path]:
    """The fonts in a fixed order; fetched on first use (5 MB)."""
    return [
        fetch(package) / member.path
        for package in (DEJAVU_SANS, DEJAVU_SERIF, DEJAVU_MONO)
        for member in package.members
    ]


def text_lines(words: Sequence[str], seed: int) -> Iterator[TextLine]:
    """An endless stream; the same words and seed give the same lines."""
    need_pillow()
    fonts = font_files()
    rng = np.random.default_rng(seed)
    while True:
        yield draw(sentence(rng, words), fonts[rng.integers(len(fonts))], rng)


def sentence(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One to three words; some capital, some with a number or a mark."""
    chosen = [words[i] for i in rng.integers(len(words), size=rng.integers(1, 4))]
    style = rng.integers(5)
    if style == 0:
        chosen = [word.capitalize() for word in chosen]
    elif style == 1:
        chosen[0] = chosen[0].upper()
    elif style == 2:
        chosen[-1] = f"{rng.integers(1, 10**6):,}" if rng.integers(2) else str(rng.integers(10, 10**8))
    mark = ("", "", "", ".", "?", "!", ",")[rng.integers(7)]
    return " ".join(chosen) + mark


def draw(text: str, font_file: Path, rng: np.random.Generator) -> TextLine:
    """Words at the end that do not fit are dropped from the picture and from the text."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    font = ImageFont.truetype(
        str(font_file), int(rng.integers(SIZES[0], SIZES[1] + 1)), layout_engine=ImageFont.Layout.BASIC
    )
    while font.getlength(text) > WIDTH - 2 * MARGIN and " " in text:
        text = text.rsplit(" ", 1)[0]
    ink = Image.new("L", (WIDTH, HEIGHT), 0)
    left = int(rng.integers(MARGIN // 2, MARGIN + 1))
    ImageDraw.Draw(ink).text((left, HEIGHT // 2 + int(rng.integers(-3, 4))), text, fill=255, font=font, anchor="lm")
    ink = ink.rotate(float(rng.uniform(-MAX_DEGREES, MAX_DEGREES)), Image.Resampling.BICUBIC)
    ink = ink.filter(ImageFilter.GaussianBlur(float(rng.uniform(*BLUR))))
    return TextLine(text, paint(np.asarray(ink, np.float32) / np.float32(255), rng))


def paint(ink: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """[height, width] of 0 (paper) to 1 (ink) → RGB of a random contrast, with a horizontal gradient and noise."""
    contrast = rng.uniform(*CONTRAST)
    paper = rng.uniform(contrast + 20, 250, size=3) if rng.integers(4) else rng.uniform(5, 235 - contrast, size=3)
    sign = -1.0 if paper.mean() > contrast + 20 else 1.0
    picture = paper + sign * contrast * ink[:, :, None]
    picture = picture + rng.uniform(-25, 25) * np.linspace(-1, 1, ink.shape[1])[None, :, None]
    picture = picture + rng.normal(0, rng.uniform(*NOISE), picture.shape)
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)
