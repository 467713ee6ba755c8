"""What is known of a machine that is not here: modelled times of layers, and what a device was measured to take.

Both are parts of `measurements.json` and of the report, under names of their own, and never among what was measured
here. Fields that do not apply are None here and absent in the file.
"""

from __future__ import annotations

from prunec.measure.results import Record


class ModelledLayer(Record):
    """One layer, dense and as it is: microseconds of the cost model, instructions that were counted under qemu."""

    name: str
    pattern: str
    density: float
    dense_us: float
    sparse_us: float
    speedup: float
    dense_instructions: int | None = None
    sparse_instructions: int | None = None
    chosen: str


class Modelled(Record):
    """`core`: what the times are modelled for, and whether the model was compared with any; `error`: then how far off.

    `dense_ms`, `sparse_ms`: of these layers together. `run_dense_ms`, `run_ms`: of whole runs, what is beside the
    products by its instructions; None where those were not counted.
    """

    core: str
    note: str
    error: float | None = None
    dense_ms: float
    sparse_ms: float
    run_dense_ms: float | None = None
    run_ms: float | None = None
    layers: tuple[ModelledLayer, ...]


class DeviceStep(Record):
    """One call of the compiled model: its nodes and its best time."""

    nodes: str
    best_us: float


class DeviceTimes(Record):
    """What the runner printed on a device. `run_ms`: the median of whole runs."""

    device: str
    threads: int
    run_ms: float
    steps: tuple[DeviceStep, ...]


class Elsewhere(Record):
    """The `measurements.json` of a package for another machine, which nothing was measured of here."""

    modelled: Modelled | None = None
    device: DeviceTimes | None = None
