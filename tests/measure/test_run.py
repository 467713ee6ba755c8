"""Measuring with fake runners (known costs, known misbehaviour) and once with ONNX Runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunec.diagnostics import GateError, PrunecError
from prunec.measure.contender import DENSE, PRUNED, Contender
from prunec.measure.results import Measurements
from prunec.measure.run import measure
from prunec.measure.schedule import plan_blocks

ROOT = Path(__file__).parents[2]
FEEDS = {"x": np.ones((2, 3), np.float32)}
QUICK = {"blocks": 6, "warmup_s": 0.02, "block_ms": 3.0, "processes": 1}


def fake(tmp_path: Path, name: str, kind: str = "Sleeper", ms: float = 1.0) -> Contender:
    model = tmp_path / f"{name}.txt"
    model.write_text(str(ms))
    return Contender(name, model, f"tests.measure.fake_runners:{kind}")


def alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_contender_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """It sees what that environment holds (here numpy alone) and prunec, not prunec's packages."""
    venv.create(tmp_path / "own", with_pip=False, symlinks=True)
    (packages,) = (tmp_path / "own" / "lib").glob("python*/site-packages")
    folder = Path(np.__file__).parent
    for name in ("numpy", "numpy.libs"):
        if (folder.parent / name).is_dir():
            (packages / name).symlink_to(folder.parent / name)
    other = fake(tmp_path, "elsewhere", "Elsewhere")
    other = replace(other, python=tmp_path / "own" / "bin" / "python")
    found = measure([fake(tmp_path, DENSE), other], FEEDS, **QUICK)  # type: ignore[arg-type]
    versions = found.machine.versions
    assert versions["prefix"] == str(tmp_path / "own") and versions["numpy"].startswith(str(packages))
    assert versions["pydantic"] == "None"


def test_planted_ratio_is_recovered(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    result = measure(
        [fake(tmp_path, DENSE, ms=12.0), fake(tmp_path, PRUNED, ms=4.0)],
        FEEDS,
        blocks=10,
        warmup_s=0.02,
        block_ms=12.0,
        processes=2,
        progress=lambda *step: steps.append(step),
    )
    speedup = result.speedup[f"vs_{DENSE}"]
    assert speedup.median == pytest.approx(3.0, rel=0.2)
    assert speedup.verdict == "faster"
    assert result.contenders[DENSE].p50_ms == pytest.approx(12.0, rel=0.2)
    assert result.contenders[DENSE].p90_ms >= result.contenders[DENSE].p50_ms
    assert result.protocol.blocks == 10
    assert result.protocol.runs_per_block[DENSE] == 1
    assert result.protocol.runs_per_block[PRUNED] in (2, 3)
    assert [len(blocks) for blocks in result.distributions.values()] == [10, 10]
    assert steps[0] == ("warming up", 0, 2)
    assert steps[-1] == ("measuring", 10, 10)


def test_json_has_the_keys_of_the_contract_and_reads_back(tmp_path: Path) -> None:
    result = measure([fake(tmp_path, DENSE), fake(tmp_path, PRUNED)], FEEDS, seed=3, **QUICK)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(document) == {"machine", "protocol", "contenders", "speedup", "distributions"}
    assert set(document["contenders"]) == {DENSE, PRUNED}
    assert {"p50_ms", "p90_ms"} <= set(document["contenders"][DENSE])
    assert set(document["speedup"]) == {f"vs_{DENSE}"}
    assert set(document["speedup"][f"vs_{DENSE}"]) == {"median", "ci95"}
    assert "blocks_requested" not in document["protocol"]
    assert document["protocol"]["seed"] == 3
    assert Measurements.from_json(document) == result
    text = json.dumps(document)
    assert str(tmp_path) not in text
    assert os.uname().nodename not in document["machine"].values()


def test_any_number_of_contenders_and_the_subject_is_prunec(tmp_path: Path) -> None:
    names = [DENSE, PRUNED, "prunec", "prunec_dense"]
    result = measure([fake(tmp_path, name, ms=0.5) for name in names], FEEDS, **QUICK)
    assert result.protocol.subject == "prunec"
    assert list(result.speedup) == [f"vs_{DENSE}", f"vs_{PRUNED}", "vs_prunec_dense"]


def test_feeds_pinning_and_threads_reach_the_worker(tmp_path: Path) -> None:
    feeds = {"a/b:0": np.full((2, 2), 3, np.int64), "file": np.zeros((0,), np.float16)}
    result = measure([fake(tmp_path, "only", "Echo")], feeds, **QUICK)
    seen = result.machine.versions
    assert seen["a/b:0"] == "int64 (2, 2) 12"
    assert seen["file"] == "float16 (0,) 0"
    assert seen["omp"] == "1"
    assert result.protocol.pinned_cpus is not None
    assert seen["cpus"] == str(sorted(result.protocol.pinned_cpus))
    assert result.speedup == {}
    assert result.protocol.inputs["a/b:0"].shape == (2, 2)


def test_prints_of_a_library_do_not_disturb_the_protocol(tmp_path: Path) -> None:
    result = measure([fake(tmp_path, "loud", "Loud", ms=1.0)], FEEDS, **QUICK)
    assert result.contenders["loud"].p50_ms > 0.9


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("Refuses", "PC512", "no such operator: Frobnicate"),
        ("OutOfMemory", "PC513", "memory ran out"),
        ("Crashes", "PC513", "SIGABRT): assertion failed in kernel.c"),
        ("Exits", "PC513", "exit code 7"),
        ("Hangs", "PC514", "within 1.5 s"),
        ("CrashesLate", "PC513", "SIGSEGV"),
        ("Absent", "PC512", "no way to run models"),
    ],
)
def test_a_failing_contender_means_nothing_measured(tmp_path: Path, kind: str, code: str, words: str) -> None:
    contenders = [fake(tmp_path, DENSE), fake(tmp_path, "bad", kind)]
    with pytest.raises(GateError, match="nothing was measured") as raised:
        measure(contenders, FEEDS, timeout_s=1.5, **QUICK)
    assert raised.value.diagnostic.code == code
    assert raised.value.diagnostic.where == "bad"
    assert raised.value.diagnostic.hint
    assert words in raised.value.diagnostic.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 0}, "0 threads"),
        ({"threads": 10_000}, "10000 threads"),
        ({"blocks": 5}, "no 95 % interval"),
        ({"warmup_s": float("nan")}, "warm up"),
        ({"processes": 0}, "0 processes"),
        ({"subject": "nobody"}, "nobody"),
    ],
)
def test_bad_options_are_usage_errors(tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(PrunecError, match=words) as raised:
        measure([fake(tmp_path, DENSE)], FEEDS, **options)  # type: ignore[arg-type]
    assert raised.value.exit_code == 2


def test_bad_contenders_and_feeds_are_usage_errors(tmp_path: Path) -> None:
    one = fake(tmp_path, DENSE)
    with pytest.raises(PrunecError, match="names of their own"):
        measure([one, one], FEEDS)
    with pytest.raises(PrunecError, match="'warp'") as raised:
        measure([Contender("a", one.model, "warp")], FEEDS)
    assert raised.value.diagnostic.hint is not None
    assert "onnxruntime" in raised.value.diagnostic.hint
    with pytest.raises(PrunecError, match="does not exist"):
        measure([Contender("a", tmp_path / "no.onnx")], FEEDS)
    with pytest.raises(PrunecError, match="Python objects: x"):
        measure([one], {"x": np.array(["a"], dtype=object)})


def test_blocks_shrink_only_for_an_explicit_budget_and_never_below_an_interval() -> None:
    slow = {"dense": 1e9, "pruned": 0.5e9}  # a round takes (1 + 1) * 1.5 s

    def blocks(budget_s: float | None, processes: int = 1) -> int:
        return plan_blocks(slow, blocks=30, processes=processes, block_ms=10, budget_s=budget_s).blocks

    assert blocks(None) == 30
    assert blocks(1000) == 30
    assert blocks(31) == 10
    assert blocks(31, processes=5) == 2
    assert blocks(None, processes=4) == 8  # 32 in all: rounded up, not down
    for processes in (1, 5):
        with pytest.raises(GateError, match="budget") as raised:
            blocks(10, processes)
        assert raised.value.diagnostic.code == "PC519"


def test_a_block_lasts_as_long_as_asked_after_some_untimed_runs() -> None:
    schedule = plan_blocks({"tiny": 10e3, "large": 1e9, "absurd": 1.0}, blocks=30, processes=5, block_ms=10)
    assert schedule.runs == {"tiny": 1000, "large": 1, "absurd": 10_000}
    assert schedule.untimed == {"tiny": 100, "large": 1, "absurd": 1000}


def test_a_shrunk_measurement_says_so(tmp_path: Path) -> None:
    options = {**QUICK, "blocks": 50, "block_ms": 5.0, "budget_s": 0.15}
    result = measure([fake(tmp_path, DENSE, ms=5.0)], FEEDS, **options)
    assert result.protocol.blocks_requested == 50
    assert 6 <= result.protocol.blocks < 20


def test_ctrl_c_kills_the_workers(tmp_path: Path) -> None:
    model = fake(tmp_path, "slow", ms=1.0).model
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        import numpy as np
        from prunec.measure.contender import Contender
        from prunec.measure.run import measure
        contenders = [Contender(name, Path({str(model)!r}), "tests.measure.fake_runners:Sleeper") for name in "ab"]
        def progress(stage, done, of):
            if stage == "measuring":
                print("go", flush=True)
        measure(contenders, {{"x": np.ones(1)}}, warmup_s=0, blocks=100000, processes=1, progress=progress)
    """)
    for sent in (signal.SIGINT, signal.SIGKILL):  # the second one leaves the parent no chance to clean up
        parent = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert parent.stdout is not None
        assert parent.stdout.readline() == "go\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 2
        parent.send_signal(sent)
        assert parent.wait(timeout=20) != 0
        parent.stdout.close()
        deadline = time.monotonic() + 10
        while any(alive(int(child)) for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(int(child)) for child in children)


MICRO = """
<ir_version: 9, opset_import: ["" : 17]>
micro (float[1, {c}, 24, 24] x) => (float[1, {c}, 24, 24] y)
<float[{c}, {c}, 3, 3] w = {{{values}}}> {{ y = Conv<pads = [1, 1, 1, 1]>(x, w) }}
"""


def test_onnxruntime_measures_a_micro_model(tmp_path: Path) -> None:
    text = MICRO.format(c=16, values=", ".join(["0.01"] * (16 * 16 * 9)))
    path = tmp_path / "micro.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    result = measure(
        [Contender(DENSE, path), Contender(PRUNED, path)],
        {"x": np.ones((1, 16, 24, 24), np.float32)},
        warmup_s=0.1,
        blocks=12,
        processes=2,
        block_ms=5.0,
    )
    assert result.machine.versions["onnxruntime"]
    low, high = result.speedup[f"vs_{DENSE}"].ci95
    assert 0.5 < low <= high < 2  # the same model twice: no large difference can be found
    for times in result.contenders.values():
        assert 0 < times.p50_ms <= times.p90_ms
        assert times.first_run_ms is not None
        assert times.peak_rss_mib is not None
        assert 20 < times.peak_rss_mib < 2000


def test_onnxruntime_refuses_wrong_feeds(tmp_path: Path) -> None:
    path = tmp_path / "micro.onnx"
    onnx.save(onnx.parser.parse_model(MICRO.format(c=1, values=", ".join(["0.01"] * 9))), path)
    with pytest.raises(GateError, match="nothing was measured") as raised:
        measure([Contender(DENSE, path)], {"wrong": np.ones(1, np.float32)})
    assert raised.value.diagnostic.code == "PC512"
    assert "wrong" in raised.value.diagnostic.message or "'x'" in raised.value.diagnostic.message
