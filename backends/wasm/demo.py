"""Write the demo page of a package: an editor for every input, the answers, and the dense model beside the pruned one.

What an input means is guessed from its shape, and for pictures from the calibration data; the page lets its reader
choose otherwise. A sample of the data lies beside the page with what ONNX Runtime answers to it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from prunec.backends.base import DemoOptions
from prunec.backends.cross.spec import TensorSpec
from prunec.backends.onnx.session import make_session, run
from prunec.backends.wasm.layout import DEMO, DENSE, MODULE
from prunec.backends.wasm.spec import WasmSpec
from prunec.diagnostics import PrunecError
from prunec.package.jsonfile import dumps

_PAGE = Path(__file__).parent / "page"
_LEAST_PIXELS = 8
_CLOSE = 0.06
"""Of the range: how far the extremes of some pictures may lie inside those that are meant."""
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_SCALES: Mapping[str, tuple[Any, Any]] = {
    "0 to 255": (0.0, 255.0),
    "0 to 1": (0.0, 1.0),
    "−1 to 1": (-1.0, 1.0),
    "ImageNet's mean and deviation": (-_MEAN / _DEVIATION, (1 - _MEAN) / _DEVIATION),
}
_SPECIAL = ("[CLS]", "[SEP]", "[UNK]")


@dataclass(frozen=True)
class Words:
    """What a user gave for the page: names of classes, and pieces of a vocabulary in order."""

    labels: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()


def read_words(options: DemoOptions) -> Words:
    """The files of the options.

    Raises:
        PrunecError PC470: a file that cannot be read or is no WordPiece vocabulary.
    """
    labels = () if options.labels is None else tuple(_text(options.labels).splitlines())
    pieces = () if options.vocabulary is None else tuple(_pieces(options.vocabulary))
    if pieces and not set(_SPECIAL) <= set(pieces):
        message = f"no WordPiece vocabulary: it lacks {', '.join(s for s in _SPECIAL if s not in pieces)}"
        hint = "vocab.txt with a piece a line, or tokenizer.json"
        raise PrunecError("PC470", message, where=str(options.vocabulary), hint=hint)
    return Words(labels, pieces)


def check_words(words: Words, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Whether they are about this model.

    Raises:
        PrunecError PC470: a vocabulary for inputs that are no text; labels, and no output with as many elements.
    """
    if words.vocabulary and [_kind_of_text(tensor) for tensor in inputs].count("ids") != 1:
        message = "a vocabulary is for one input of whole numbers [1, tokens], beside a mask and segments by name"
        raise PrunecError("PC470", message, where="--demo-vocabulary", hint="leave it out")
    counts = [tensor.elements for tensor in outputs]
    if words.labels and len(words.labels) not in counts:
        message = f"{len(words.labels)} labels, and the outputs have {', '.join(map(str, counts))} elements"
        raise PrunecError("PC470", message, where="--demo-labels", hint="one label a line, in the order of the output")


def write_demo(
    folder: Path, dense: Path, reference: ir.Model, samples: Sequence[Mapping[str, np.ndarray]], words: Words
) -> Path:
    """Write `folder`/demo; the dense model's folder moves there, and is returned.

    `folder`: a package's `wasm`. `reference` is the pruned model, which answers the first of the `samples` in ONNX
    Runtime.
    """
    spec, place = WasmSpec.read(folder), folder / DEMO
    inputs = [_editor(tensor, [feeds[tensor.name] for feeds in samples], words) for tensor in spec.inputs]
    place.mkdir()
    for file in _PAGE.iterdir():
        if file.suffix in (".html", ".css", ".js", ".svg"):
            shutil.copyfile(file, place / file.name)
    if words.vocabulary:
        (place / "vocabulary.json").write_text(json.dumps(words.vocabulary, ensure_ascii=False), encoding="utf-8")
    answers = run(make_session(reference), samples[0])
    data, offsets = _joined([*_memory(spec.inputs, samples[0]), *_memory(spec.outputs, answers)])
    (place / "sample.bin").write_bytes(data)
    about = {
        "inputs": inputs,
        "labels": words.labels,
        "is_embedding": bool(words.vocabulary) and not words.labels,
        "sizes": {"pruned": _sizes(folder), "dense": _sizes(dense)},
        "sample": {"inputs": offsets[: len(inputs)], "outputs": offsets[len(inputs) :]},
    }
    (place / "about.js").write_text(f"export default {dumps(about).rstrip()};\n", encoding="utf-8")
    return Path(shutil.move(dense, place / DENSE))


def _editor(tensor: TensorSpec, data: Sequence[np.ndarray], words: Words) -> dict[str, Any]:
    """What the page shows for an input."""
    kind = _kind_of_text(tensor) if words.vocabulary else None
    if kind is not None:
        return {"kind": kind}
    image = _image(tensor, data)
    return {"kind": "numbers"} if image is None else {"kind": "image", "image": image}


def _kind_of_text(tensor: TensorSpec) -> str | None:
    """What a tokeniser makes for an input; None for what is no text."""
    if tensor.dtype not in ("int64", "int32") or len(tensor.shape) != 2 or tensor.shape[0] != 1:
        return None
    name = tensor.name.lower()
    return "mask" if "mask" in name else "segments" if "type" in name or "segment" in name else "ids"


def _image(tensor: TensorSpec, data: Sequence[np.ndarray]) -> dict[str, Any] | None:
    """Layout and scales of a picture: [1, c, h, w] or [1, h, w, c] with one or three channels."""
    if tensor.dtype != "float32" or len(tensor.shape) != 4 or tensor.shape[0] != 1:
        return None
    axis = next((axis for axis in (1, 3) if tensor.shape[axis] in (1, 3)), None)
    if axis is None:
        return None
    height, width = (tensor.shape[a] for a in (1, 2, 3) if a != axis)
    if min(height, width) < _LEAST_PIXELS:
        return None
    channels = tensor.shape[axis]
    flat = np.concatenate([np.moveaxis(array, axis, 0).reshape(channels, -1) for array in data], axis=1)
    return {
        "channels": channels, "height": height, "width": width, "channels_last": axis == 3,
        "scales": _scales(flat.min(axis=1), flat.max(axis=1)),
    }  # fmt: skip


def _scales(low: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    """What the bytes 0 and 255 may mean, the likeliest first: a usual scale that the data fills, or its extremes."""
    own = {"name": "extremes of the data", "low": _rounded(low), "high": _rounded(high)}
    found = [own]
    for name, ends in _SCALES.items():
        if len(low) != 3 and np.size(ends[0]) == 3:
            continue
        least, most = (np.broadcast_to(end, low.shape) for end in ends)
        room = _CLOSE * (most - least)
        scale = {"name": name, "low": _rounded(least), "high": _rounded(most)}
        fills = np.all(np.abs(low - least) <= room) and np.all(np.abs(high - most) <= room)
        found.insert(0 if fills and found[0] is own else len(found), scale)
    return found


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def _memory(tensors: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Arrays as the module's memory holds them."""
    return [np.ascontiguousarray(arrays[t.name]).astype(np.dtype(t.dtype), copy=False) for t in tensors]


def _joined(arrays: Sequence[np.ndarray]) -> tuple[bytes, list[int]]:
    """One after the other, each where a typed array may start."""
    data, offsets = bytearray(), []
    for array in arrays:
        data += bytes(-len(data) % 8)
        offsets.append(len(data))
        data += array.tobytes()
    return bytes(data), offsets


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the module without the weights, and of these."""
    spec, module = WasmSpec.read(folder), (folder / MODULE).stat().st_size
    is_embedded = spec.weights == "embedded"
    return {"module": module - spec.weights_bytes * is_embedded, "weights": spec.weights_bytes}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        message = f"cannot be read: {getattr(reason, 'strerror', None) or reason}"
        raise PrunecError("PC470", message, where=str(path), hint="a text file in UTF-8") from None


def _pieces(path: Path) -> Sequence[str]:
    """A piece a line, or the vocabulary of a tokenizer.json."""
    text = _text(path)
    if path.suffix != ".json":
        return text.splitlines()
    try:
        numbers = json.loads(text)["model"]["vocab"]
        return sorted(numbers, key=lambda piece: int(numbers[piece]))
    except (ValueError, KeyError, TypeError) as reason:
        message = f"no vocabulary of a tokenizer: {reason}"
        raise PrunecError("PC470", message, where=str(path), hint="model.vocab of a WordPiece tokenizer") from None
