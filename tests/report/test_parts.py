"""Units, ticks, shortened names, table rows and the terminal's tables."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from prunec.measure.results import Speedup
from prunec.report import svg, units
from prunec.report.console import print_compensation, print_groups, print_summary
from prunec.report.curve import apart
from prunec.report.data import before_after
from tests.report.samples import sample


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.count(0), "0"),
        (units.count(999), "999"),
        (units.count(999_900), "1.00 M"),
        (units.count(1_234_567), "1.23 M"),
        (units.count(12_345), "12.3 k"),
        (units.size(1023), "1023 B"),
        (units.size(1024), "1.00 KiB"),
        (units.size(500), "500 B"),
        (units.size(46_800_000), "44.6 MiB"),
        (units.ms(0.0123), "12.3 µs"),
        (units.ms(7.4), "7.40 ms"),
        (units.ms(999.7), "1000 ms"),
        (units.ms(0.00005), "0.0500 µs"),
        (units.ms(123.4), "123 ms"),
        (units.ms(12345.6), "12346 ms"),
        (units.change(100, 58), "−42.0 %"),
        (units.change(100, 103), "+3.0 %"),
        (units.change(5, 5), "unchanged"),
        (units.change(0, 5), "new"),
        (units.error(0), "0"),
        (units.error(3.14e-7), "3.1e-7"),
        (units.error(0.314), "0.31"),
        (units.number(-0.25), "−0.25"),
        (units.interval(Speedup(median=1.923, ci95=(1.88, 1.97))), "1.92× (1.88 to 1.97), faster"),
    ],
)
def test_units(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize("highest", [1e-6, 0.3, 1, 23.4, 999, 1e9])
def test_ticks_are_few_and_cover(highest: float) -> None:
    marks = svg.ticks(highest)
    assert marks[0] == 0
    assert marks[-1] >= highest * (1 - 1e-9)
    assert 3 <= len(marks) <= 8
    assert svg.ticks(0) == [0.0, 1.0]


def test_names_in_a_chart_are_not_written_over_each_other() -> None:
    names = [(100.0, 50.0, "a"), (110.0, 52.0, "b"), (400.0, 51.0, "far"), (105.0, 60.0, "c")]
    found = {name: (x, y) for x, y, name in apart(names)}
    assert found["a"] == (100, 50) and found["far"] == (400, 51)
    assert [x for x, _ in (found["b"], found["c"])] == [110, 105]
    assert found["b"][1] - found["a"][1] >= 14 and found["c"][1] - found["b"][1] >= 14


def test_long_names_keep_both_ends() -> None:
    short = svg.shorten("/features/block12/conv/expand/Conv_output_weight", 20)
    assert len(short) == 20
    assert short.startswith("/featu")
    assert short.endswith("weight")
    assert svg.shorten("conv1", 20) == "conv1"


def test_rows_follow_what_is_known() -> None:
    data = sample(4, contenders=3)
    assert [row.label.split(",")[0].split(":")[0] for row in before_after(data)] == [
        *("Parameters", "Multiply-accumulates", "Model file", "Latency", "Latency"),
        *("Peak memory of the process", "Quality"),
    ]
    nothing = dataclasses.replace(data, measurements=None, verification={}, layers=(), bytes_before=None)
    assert before_after(nothing) == []


def test_a_gain_in_quality_is_no_drop() -> None:
    data = sample(1)
    quality = {**data.verification["quality"], "drop": -0.01}
    row = before_after(dataclasses.replace(data, verification={"quality": quality}))[-1]
    assert row.good is True


def printed(show: object, *arguments: object) -> str:
    stream = io.StringIO()
    assert callable(show)
    show(Console(file=stream, width=140, no_color=True), *arguments)
    return stream.getvalue()


def test_the_terminal_shows_the_same_numbers() -> None:
    data = sample(5, name="[bold]odd[/].onnx")
    text = printed(print_summary, data)
    assert "[bold]odd[/].onnx" in text
    assert "faster" in text
    assert "44.6 MiB" in text
    assert "synthetic inputs" in text
    assert "Nothing was measured" in printed(print_summary, dataclasses.replace(data, measurements=None))


def test_groups_and_compensation_in_the_terminal() -> None:
    data = sample(5, layer_name="[red]layer[/red]")
    groups = printed(
        print_groups, {"groups": [{"id": "g0", "size": 4, "keep": [0, 1, 2]}, {"id": "e", "size": 0, "kept": 0}]}
    )
    assert "25.0 %" in groups
    assert "–" in groups
    table = printed(print_compensation, data.verification)
    assert "[red]layer[/red]" in table
    assert "least-squares" in table
    assert printed(print_compensation, {}) == ""
