"""What a log is told of long work."""

from __future__ import annotations

import pytest

from prunec.cli.progress import QUIET_S, lines_for_a_log


def test_a_log_has_each_stage_once_and_a_count_where_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    report = lines_for_a_log(lambda: now)
    for seconds, what, done, of in (
        (0, "timing layers: conv1", 0, 8),
        (1, "timing layers: conv2", 1, 8),
        (QUIET_S + 1, "timing layers: conv3", 2, 8),
        (QUIET_S + 2, "timing layers: conv4", 3, 8),
        (QUIET_S + 3, "solving", 0, 0),
        (3 * QUIET_S, "solving", 0, 0),  # of nobody knows how many
        (3 * QUIET_S, "timing layers: conv5", 4, 8),
    ):
        now = seconds
        report(what, done, of)
    assert capsys.readouterr().err.splitlines() == [
        "timing layers …", "timing layers … 2 of 8", "solving …", "timing layers … 4 of 8",
    ]  # fmt: skip
