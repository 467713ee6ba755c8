"""report.html: well formed, self-contained, and safe with names that try to be markup."""

from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from prunec.diagnostics import Diagnostic
from prunec.report.console import print_recovery
from prunec.report.data import ReportData
from prunec.report.html import render_report
from tests.report.samples import sample

VOID = {"meta", "br", "link", "img", "input", "hr"}
EVIL = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.words)


def bare(data: ReportData) -> ReportData:
    return dataclasses.replace(data, measurements=None, verification={}, layers=(), warnings=(), bytes_before=None)


@pytest.mark.parametrize("data", [sample(1), sample(5, contenders=4), sample(150), bare(sample(3)), sample(0)])
def test_the_page_is_well_formed_and_loads_nothing(data: ReportData) -> None:
    text = render_report(data)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|src=|href=|javascript:", text)
    assert re.findall(r"url\([^)]*\)", text) == ["url(#hatch)"]
    assert "default-src 'none'" in text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_it_says_what_happened() -> None:
    page = Page(render_report(sample(5)))
    for words in (
        "resnet18.onnx",
        "top-1 agreement",
        "faster",
        "dense_onnxruntime",
        "synthetic",
        "PC301",
        "least-squares",
        "prunec compile resnet18.onnx --target onnx --pattern channel --flops 0.5 --seed 0 -o out",
        "interleaved A B B A",
        "Intel(R) Xeon(R)",
        "budget flops 0.5",
        "44.6 MiB",
    ):
        assert words in page.text, words


def test_it_claims_nothing_that_was_not_found() -> None:
    page = Page(render_report(bare(sample(3))))
    assert "Nothing was measured" in page.text
    assert "Quality was not measured" in page.text
    assert "Nothing was verified" in page.text
    assert "faster" not in page.text
    assert "svg" not in page.tags


def test_no_difference_is_not_called_faster() -> None:
    data = sample(2)
    assert data.measurements is not None
    speedup = {"vs_dense_onnxruntime": {"median": 1.05, "ci95": [0.98, 1.1]}}
    text = Page(render_report(dataclasses.replace(data, measurements={**data.measurements, "speedup": speedup}))).text
    assert "no difference shown" in text
    assert "faster" not in text


def test_names_that_try_to_be_markup_stay_text() -> None:
    data = sample(3, name=EVIL, layer_name=EVIL)
    data = dataclasses.replace(
        data,
        command=EVIL,
        warnings=(Diagnostic(EVIL, EVIL, EVIL, EVIL),),
        plan={**data.plan, "criterion": EVIL, "groups": [{"id": EVIL, "size": 4, "keep": [0, 1]}]},
    )
    text = render_report(data)
    page = Page(text)
    assert "<script" not in text
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 8


def test_the_same_data_give_the_same_page() -> None:
    assert render_report(sample(7)) == render_report(sample(7))


def test_every_layer_has_its_bar() -> None:
    page = Page(render_report(sample(150)))
    titles = [word for word in page.words if word.endswith(" MACs")]
    assert len(titles) == 3 * 150 or len(titles) == 3 * 150 + 1  # label, kept, cut; and the section's prose
    assert "/layer18/layer18.5/conv2/Conv" in page.text


def ordered(group: str) -> ReportData:
    """Two of three groups in a new order, for a pattern on one layer."""
    data = sample(3)
    layer = {"layer": "conv", "tensor": "w", "pattern": "2:4", "level": 0.5, "units": 9, "valid": 9, "zeros": 0.5}
    order = {"kept_before": 0.71, "kept_after": 0.83, "error_before": 0.0456, "error_after": 0.0321}
    record = {
        "groups": [{"id": group, "moved": 61, **order}, {"id": "g1", "moved": 7, **order}],
        "float32_max_rel": 2.5e-7,
        "seeds": [0],
        "passed": True,
    }
    patterns = {"layers": [{**layer, "passed": True}], "zeros": 0.4, "passed": True, "permutation": record}
    left = [{"id": "g2", "why": "no other order keeps more"}]
    return dataclasses.replace(
        data,
        plan={**data.plan, "permutation": {"fingerprint": "", "groups": [], "left": left}},
        verification={**data.verification, "patterns": patterns},
    )


def test_orders_are_shown_where_there_are_some() -> None:
    text = Page(render_report(ordered(EVIL))).text
    for words in ("Channels reordered", "2 groups", EVIL, "61", "71", "83", "2.5e-7", "g2: no other order keeps more"):
        assert words in text, words
    assert "Channels reordered" not in Page(render_report(sample(3))).text


def test_an_error_after_training_that_is_not_finite_is_said() -> None:
    data = sample(3)
    record = {"method": "full", "kept": False, "error_before": 0.25, "samples": 40, "parameters": 7, "minutes": 1.5}
    data = dataclasses.replace(data, verification={**data.verification, "recovery": {**record, "runs": []}})
    assert "0.25 before, not finite after. It did not help" in Page(render_report(data)).text
    said = io.StringIO()
    print_recovery(Console(file=said, width=200), data.verification)
    assert "0.25 → not finite; it did not help" in said.getvalue()


def test_a_metric_that_training_lowered_is_said() -> None:
    data = sample(3)
    record = {"method": "full", "kept": False, "error_before": 0.25, "error_after": 0.2, "samples": 40, "parameters": 7,
              "minutes": 1.5, "runs": [], "metric": {"name": EVIL, "before": 0.75, "after": 0.5}}  # fmt: skip
    data = dataclasses.replace(data, verification={**data.verification, "recovery": record})
    text = Page(render_report(data)).text
    assert f"{EVIL}: 0.75 before, 0.5 after. It harmed" in text
    said = io.StringIO()
    print_recovery(Console(file=said, width=300), data.verification)
    assert "0.75 → 0.5; it harmed and was taken back" in said.getvalue()


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([("finished", 9), ("as planned", 4)], ""),
        ([("no progress", 4)], " a ended at step 4 of 9: the error on samples that watch had stopped falling."),
        ([("finished", 9), ("time", 7)], " b ended at step 7 of 9: the minutes were over, as steps took longer"),
        (
            [("time", 3), ("no progress", 4), ("no progress", 4)],
            " 3 of 3 runs ended early: 2 because the error on samples that watch had stopped falling; 1 because the",
        ),
    ],
)
def test_a_training_that_ended_early_says_why(ends: list[tuple[str, int]], said: str) -> None:
    runs = [{"name": name, "of": 9, "done": done, "stopped": stop} for name, (stop, done) in zip("abc", ends)]  # noqa: B905
    record = {"method": "full", "kept": True, "error_before": 0.25, "error_after": 0.2, "samples": 40, "minutes": 1.5}
    printed = io.StringIO()
    print_recovery(Console(file=printed, width=400), {"recovery": {**record, "runs": runs}})
    rest = printed.getvalue().strip().partition("0.2.")[2]
    assert rest.startswith(said) and bool(rest) == bool(said)
