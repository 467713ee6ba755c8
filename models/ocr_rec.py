"""ocr-rec: PP-OCRv4 text-line recognition (Chinese and English), convolutions and SVTR attention, CTC.

Input `x` [b, 3, 48, W] BGR, (x/255 − .5)/.5; output [b, W/8, 6625] probabilities over blank, the charset, and space.
The metric reads rendered lines of verbs; calibration shows rendered lines of nouns under other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np

from prunec.models.fetch import Progress, fetch
from prunec.models.packages import RAPIDOCR
from prunec.models.runner import Array, Batch, Runner, only_output
from prunec.models.shipped import copy_model
from prunec.models.text_lines import TextLine, text_lines
from prunec.models.words import NOUNS, VERBS

TEST_SEED, CALIBRATION_SEED = 20_000, 10_000
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
DEFAULT_SAMPLES = 200


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    return copy_model("ocr-rec", RAPIDOCR, MEMBER, folder, cache=cache, progress=progress)


def calibration(samples: int = 64, seed: int = 0) -> Iterator[Batch]:
    for line in islice(text_lines(NOUNS, CALIBRATION_SEED + seed), samples):
        yield preprocess(line)


def lines_of_verbs(samples: int, seed: int) -> Iterator[TextLine]:
    return islice(text_lines(VERBS, TEST_SEED + seed), samples)


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    for line in lines_of_verbs(samples, seed):
        yield preprocess(line)


def metric(run: Runner, *, samples: int | None = None) -> dict[str, float]:
    """`exact`: share of lines read without a mistake. `cer`: edit distance / characters, lower is better."""
    exact = wrong = characters = count = 0
    for line in lines_of_verbs(samples or DEFAULT_SAMPLES, 0):
        read = ctc_text(only_output(run(preprocess(line)))[0], charset()).strip()
        exact += read == line.text
        wrong += edit_distance(read, line.text)
        characters += len(line.text)
        count += 1
    return {"exact": exact / count, "cer": wrong / characters}


def preprocess(line: TextLine) -> Batch:
    bgr = line.pixels[:, :, ::-1].astype(np.float32)
    return {"x": np.ascontiguousarray(((bgr / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])}


@cache
def charset() -> tuple[str, ...]:
    """Index → character; 0 is the CTC blank. From the model's metadata key `character`."""
    import onnx

    model = onnx.load(fetch(RAPIDOCR) / MEMBER)
    (characters,) = (entry.value for entry in model.metadata_props if entry.key == "character")
    return ("", *characters.splitlines(), " ")


def ctc_text(scores: Array, characters: Sequence[str]) -> str:
    """Greedy decoding of [steps, classes]: best class per step, repeats merged, blanks dropped."""
    best = scores.argmax(axis=1)
    fresh = np.concatenate(([True], best[1:] != best[:-1]))
    return "".join(characters[i] for i in best[fresh])


def edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]
