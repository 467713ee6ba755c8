"""What the metrics are made of, on inputs small enough to check by hand."""

import numpy as np
import pytest

from prunec.models import crepe, minilm_l6, ocr_det, ocr_rec
from prunec.models.onnx_builder import GraphBuilder
from prunec.models.text_pages import TextPage
from prunec.models.wordnet import _sense
from prunec.models.wordpiece import WordPiece
from prunec.models.words import NOUNS, VERBS


def test_test_words_and_calibration_words_are_disjoint():
    assert not set(VERBS) & set(NOUNS)
    assert min(len(set(VERBS)), len(set(NOUNS))) > 600


def scores(best: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[best]


def test_ctc_merges_repeats_and_drops_blanks():
    characters = ("", "a", "b", " ")
    assert ocr_rec.ctc_text(scores([0, 1, 1, 0, 1, 2, 3, 3, 2, 0], 4), characters) == "aab b"
    assert ocr_rec.ctc_text(scores([0, 0], 4), characters) == ""


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
)
def test_edit_distance(a, b, distance):
    assert ocr_rec.edit_distance(a, b) == ocr_rec.edit_distance(b, a) == distance


def test_boxes_grow_back_to_the_line():
    probability = np.zeros((64, 64), np.float32)
    probability[20:24, 10:50] = 0.9
    probability[50, 50] = 0.9  # a speck
    ((left, top, right, bottom),) = ocr_det.find_boxes(probability)
    grow = ocr_det.UNCLIP_RATIO * 4 * 40 / (2 * 44)
    assert (left, top, right, bottom) == pytest.approx((10 - grow, 20 - grow, 50 + grow, 24 + grow))


def test_boxes_match_one_to_one():
    line = (0.0, 0.0, 10.0, 10.0)
    assert ocr_det.iou(line, line) == 1
    assert ocr_det.iou(line, (20.0, 0.0, 30.0, 10.0)) == 0
    assert ocr_det.iou(line, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(1 / 3)
    assert ocr_det.count_matches([line, line], (line,)) == 1
    assert ocr_det.count_matches([(0.0, 0.0, 10.0, 4.0)], (line,)) == 0


def test_detection_input_is_bgr_and_normalised():
    page = TextPage(np.zeros((2, 2, 3), np.uint8), ())
    page.pixels[..., 0] = 255  # red
    x = ocr_det.preprocess(page)["x"]
    assert x.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(x[0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225], rtol=1e-6)


def test_pitch_is_the_weighted_mean_around_the_best_bin():
    salience = np.zeros((2, 360), np.float32)
    salience[0, 100] = 1
    salience[1, [200, 201]] = 0.5
    expected = crepe.FIRST_BIN_CENTS + 20 * np.array([100, 200.5])
    np.testing.assert_allclose(crepe.pitch_cents(salience), expected)


def test_an_oracle_scores_one_and_octave_errors_count_for_chroma_only():
    data = crepe.tones(20, crepe.TEST_SEED)
    answers = iter(data.cents)

    def run(shift: float):
        def oracle(batch):
            bins = (next(answers) + shift - crepe.FIRST_BIN_CENTS) / 20
            near = np.maximum(0, 1 - abs(np.arange(360) - bins))
            return {"salience": near[None].astype(np.float32)}

        return oracle

    assert crepe.pitch_metric(run(0), 20) == {"rpa50": 1.0, "rca50": 1.0}
    answers = iter(np.minimum(data.cents, crepe.FIRST_BIN_CENTS + 20 * 290))
    shifted = crepe.pitch_metric(run(1200), 20)
    assert shifted["rpa50"] == 0 and shifted["rca50"] > 0.5


def test_tones_are_normalised_repeatable_and_differ_by_seed():
    first, again, other = (crepe.tones(4, seed).frames for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).all(axis=1).any()
    np.testing.assert_allclose(first.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(first.std(1, ddof=1), 1, rtol=1e-5)


def test_a_dead_encoder_finds_nothing():
    assert minilm_l6.ranks(np.array([[3, 1, 2], [5, 4, 0], [1, 2, 0]], np.float32)).tolist() == [1, 2, 3]
    assert minilm_l6.ranks(np.ones((3, 3), np.float32)).tolist() == [3, 3, 3]
    assert minilm_l6.ranks(np.full((3, 3), np.nan, np.float32)).tolist() == [3, 3, 3]


@pytest.fixture
def tokeniser() -> WordPiece:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "cafe", "##s", ",", "'"]
    return WordPiece({word: index for index, word in enumerate(words)})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("unaffable", [2, 4, 5, 6, 3]),
        ("Cafés, UNABLE", [2, 7, 8, 9, 4, 6, 3]),
        ("café's", [2, 7, 10, 1, 3]),
        ("un" + "x" * 200, [2, 1, 3]),
        ("  ", [2, 3]),
    ],
)
def test_word_pieces(tokeniser, text, ids):
    encoded = tokeniser.encode(text, 10)
    assert encoded.input_ids.tolist() == [ids + [0] * (10 - len(ids))]
    assert encoded.attention_mask.tolist() == [[1] * len(ids) + [0] * (10 - len(ids))]
    assert encoded.tokens == len(ids)


def test_long_texts_are_cut_and_still_closed(tokeniser):
    encoded = tokeniser.encode("cafe " * 20, 5)
    assert encoded.input_ids.tolist() == [[2, 7, 7, 7, 3]]
    assert encoded.tokens == 22


def test_a_gloss_is_split_into_definition_and_examples():
    sense = _sense('breathe hard; gasp; "He puffed"; "she, too, puffed"  ')
    assert sense.definition == "breathe hard; gasp"
    assert sense.examples == ("He puffed", "she, too, puffed")
    assert _sense("suck in (air)  ").examples == ()


def test_graphs_are_written_with_the_same_bytes_every_time():
    def build() -> bytes:
        g = GraphBuilder("g", {"fc.weight": np.ones((3, 2), np.float32), "fc.bias": np.zeros(3, np.float32)})
        g.output(g.linear(g.input("x", np.float32, ["b", 2]), "fc"), np.float32, ["b", 3])
        model = g.model()
        assert [node.op_type for node in model.graph.node] == ["MatMul", "Add"]
        assert {t.name: tuple(t.dims) for t in model.graph.initializer} == {"fc.weight": (2, 3), "fc.bias": (3,)}
        return model.SerializeToString(deterministic=True)

    assert build() == build()
