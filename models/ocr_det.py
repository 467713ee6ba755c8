"""ocr-det: PP-OCRv4 text detection, differentiable binarisation: convolutions, transposed convolutions, HardSigmoid.

Input `x` [b, 3, H, W] BGR, (x/255 − mean)/deviation, H and W multiples of 32; output [b, 1, H, W] probability of text.
The metric finds boxes on rendered pages of verbs; calibration shows pages of nouns under other seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunec.models.fetch import Progress
from prunec.models.packages import RAPIDOCR
from prunec.models.runner import Batch, Runner, only_output
from prunec.models.shipped import copy_model
from prunec.models.text_pages import Box, TextPage, text_pages
from prunec.models.words import NOUNS, VERBS

TEST_SEED, CALIBRATION_SEED = 40_000, 30_000
MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
DEFAULT_SAMPLES = 60
THRESHOLD = 0.3
UNCLIP_RATIO = 1.4  # the network marks a shrunken core of each line: grow it by area · ratio / perimeter
SMALLEST_SIDE = 3
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    return copy_model("ocr-det", RAPIDOCR, MEMBER, folder, cache=cache, progress=progress)


def calibration(samples: int = 64, seed: int = 0) -> Iterator[Batch]:
    yield from map(preprocess, islice(text_pages(NOUNS, CALIBRATION_SEED + seed), samples))


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    yield from map(preprocess, islice(text_pages(VERBS, TEST_SEED + seed), samples))


def metric(run: Runner, *, samples: int | None = None) -> dict[str, float]:
    """`f1` of boxes matched at IoU ≥ 0.5, one to one; with its `precision` and `recall`."""
    matched = found = present = 0
    for page in islice(text_pages(VERBS, TEST_SEED), samples or DEFAULT_SAMPLES):
        boxes = find_boxes(only_output(run(preprocess(page)))[0, 0])
        matched += count_matches(boxes, page.boxes)
        found += len(boxes)
        present += len(page.boxes)
    precision, recall = matched / max(found, 1), matched / max(present, 1)
    return {"f1": 2 * matched / max(found + present, 1), "precision": precision, "recall": recall}


def preprocess(page: TextPage) -> Batch:
    bgr = page.pixels[:, :, ::-1].astype(np.float32) / 255
    normal = (bgr - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return {"x": np.ascontiguousarray(normal.transpose(2, 0, 1)[None])}


def find_boxes(probability: npt.NDArray[np.float32]) -> list[Box]:
    """Connected regions above the threshold, as upright boxes grown to full line height."""
    from scipy import ndimage

    regions, _ = ndimage.label(probability > THRESHOLD, structure=np.ones((3, 3)))
    boxes = []
    for rows, columns in ndimage.find_objects(regions):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < SMALLEST_SIDE:
            continue
        grow = UNCLIP_RATIO * height * width / (2 * (height + width))
        boxes.append((columns.start - grow, rows.start - grow, columns.stop + grow, rows.stop + grow))
    return boxes


def count_matches(found: list[Box], present: tuple[Box, ...]) -> int:
    """Greedy one-to-one matching, largest overlap first."""
    overlaps = [(iou(a, b), i, j) for i, a in enumerate(found) for j, b in enumerate(present)]
    used_found: set[int] = set()
    used_present: set[int] = set()
    for overlap, i, j in sorted(overlaps, reverse=True):
        if overlap >= 0.5 and i not in used_found and j not in used_present:
            used_found.add(i)
            used_present.add(j)
    return len(used_found)


def iou(a: Box, b: Box) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inner = width * height
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)
