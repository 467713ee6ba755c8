"""The speed gate: shown, not shown, below, and nothing measured."""

from __future__ import annotations

import pytest

from prunec.measure.doubts import measurement_warnings
from prunec.measure.gate import gate_speedup
from prunec.measure.machine import allowed_cpus, describe_machine
from prunec.measure.results import Input, MeasurementProtocol, Measurements, Speedup, Times


def measured(median: float, low: float, high: float) -> Measurements:
    return Measurements(
        machine=describe_machine(),
        protocol=MeasurementProtocol(
            subject="pruned_onnxruntime",
            threads=1,
            inputs={"x": Input(shape=(1,), dtype="float32")},
            order="A B B A",
            warmup_s=0.5,
            processes=5,
            blocks=30,
            runs_per_block={},
            untimed_runs_per_block={},
            statistic="median",
            interval="bootstrap",
            seed=0,
        ),
        contenders={"dense_onnxruntime": Times(p50_ms=median, p90_ms=median)},
        speedup={"vs_dense_onnxruntime": Speedup(median=median, ci95=(low, high))},
        distributions={},
    )


def test_a_shown_speedup_passes() -> None:
    assert gate_speedup(measured(1.6, 1.51, 1.7), 1.5) is None


@pytest.mark.parametrize(
    ("result", "words"), [(measured(1.4, 1.3, 1.5), "below"), (measured(1.6, 1.4, 1.8), "does not show")]
)
def test_too_slow_or_not_shown_is_a_no(result: Measurements, words: str) -> None:
    no = gate_speedup(result, 1.5)
    assert no is not None
    assert no.exit_code == 1
    assert no.diagnostic.code == "PC517"
    assert no.diagnostic.hint
    assert words in no.diagnostic.message


def test_nothing_measured_is_a_no() -> None:
    for result in (None, measured(2.0, 1.9, 2.1).model_copy(update={"speedup": {}})):
        no = gate_speedup(result, 1.5)
        assert no is not None
        assert no.diagnostic.code == "PC518"


def test_the_machine_is_described_without_naming_it() -> None:
    machine = describe_machine({"onnxruntime": "1"})
    assert machine.cpu
    assert machine.logical_cpus >= 1
    assert set(machine.versions) == {"python", "onnxruntime"}
    assert "cores" not in machine.model_copy(update={"cores": None}).to_json()


def test_pinning_prefers_whole_cores() -> None:
    cpus = allowed_cpus()
    assert len(set(cpus)) == len(cpus)
    assert cpus


def test_doubts_are_said() -> None:
    quiet = measured(2.0, 1.9, 2.1)
    protocol = quiet.protocol.model_copy(update={"pinned_cpus": (0,), "load_average_1min": 0.1})
    quiet = quiet.model_copy(update={"protocol": protocol})
    assert measurement_warnings(quiet) == []
    busy = protocol.model_copy(
        update={"pinned_cpus": None, "load_average_1min": 64.0 * quiet.machine.logical_cpus, "blocks_requested": 60}
    )
    warnings = measurement_warnings(quiet.model_copy(update={"protocol": busy}))
    assert [warning.code for warning in warnings] == ["PC520", "PC521", "PC522"]
    assert all(warning.hint for warning in warnings)


def test_a_package_for_tensorrt_is_compared_with_the_dense_engine() -> None:
    result = measured(1.6, 1.51, 1.7)
    own = {"speedup": {"vs_tensorrt_dense": result.speedup["vs_dense_onnxruntime"]}}
    assert gate_speedup(result.model_copy(update=own), 1.5) is None
    no = gate_speedup(result.model_copy(update=own), 1.55)
    assert no is not None and no.diagnostic.code == "PC517"
