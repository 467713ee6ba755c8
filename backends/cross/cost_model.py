"""What products take on a processor that is not here: a model of its arithmetic, its loads and its memory.

For every block of a row of blocks a tile needs vectors × pixels multiply-adds, a load for each vector of weights and
each pixel, and the index of the block. A core starts so many of these in a cycle, a sum waits for itself, and memory
brings so many bytes: the slowest of these counts (the roofline of Williams et al., 2009, with registers as one more
roof). What the model leaves out (branches, cache sets, other processes) is why its times are called modelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from prunec.backends.cpu.isa import ARM64, ARM64_DOT, RELAXED_WASM, WASM, Isa
from prunec.backends.cpu.kernels.base import ceil_div
from prunec.backends.cpu.kernels.quad_product import QuadProduct
from prunec.backends.cpu.kernels.row_major import RowMajor
from prunec.backends.cpu.lower.candidates import Choice, Product, by_rule
from prunec.backends.cpu.lower.program import Program, Step
from prunec.backends.cpu.lower.tiles import choose_jobs, choose_tile, most_pixels
from prunec.backends.cross.quad_cost import quad_cycles


@dataclass(frozen=True)
class Core:
    """One processor core. Rates are per cycle, of vectors of the instruction set; caches in bytes.

    `multiply_add`: instructions of one (2 where they are not fused); `latency`: cycles until a sum can be added to
    again. `block`: instructions of a block beside loads and arithmetic (index, address, loop); `tile`: cycles to begin
    and end one. `calibration`: what the cycles were multiplied with after they were compared with measured times, and
    `error`: the median relative one that was left; None where nothing could be measured.
    """

    name: str
    ghz: float
    arithmetic: float
    loads: float
    issue: float
    multiply_add: int
    latency: int
    block: int
    tile: int
    first_cache: int
    second_cache: int
    second_bytes: float
    memory_bytes: float
    calibration: float = 1.0
    error: float | None = None

    @property
    def label(self) -> str:
        """As in tables and reports."""
        how = "not calibrated" if self.error is None else f"calibrated, {self.error:.0%} median error"
        return f"{self.name}, {self.ghz:g} GHz ({how})"


CORTEX_A76 = Core(
    "Cortex-A76", ghz=2.4, arithmetic=2, loads=2, issue=4, multiply_add=1, latency=4, block=6, tile=24,
    first_cache=64 * 2**10, second_cache=512 * 2**10, second_bytes=16, memory_bytes=4,
)  # fmt: skip
"""Arm's Cortex-A76 Software Optimization Guide: two pipelines for 128-bit FMLA of latency 4 (2 when it only adds to an
earlier one), two loads, four instructions decoded in a cycle. Clock, caches and memory are those of a Raspberry Pi 5.
"""
WASM_HOST = Core(
    "a 64-bit x86 host of WebAssembly", ghz=2.5, arithmetic=2, loads=2, issue=4, multiply_add=2, latency=4, block=8,
    tile=40, first_cache=32 * 2**10, second_cache=2**20, second_bytes=24, memory_bytes=4, calibration=1.05, error=0.2,
)  # fmt: skip
"""128-bit products and sums apart, two of either in a cycle. `python -m benchmarks.cost_model` compares it with V8."""
CORES: Mapping[str, Core] = {
    ARM64.name: CORTEX_A76,
    ARM64_DOT.name: CORTEX_A76,
    WASM.name: WASM_HOST,
    RELAXED_WASM.name: WASM_HOST,
}


def core_for(isa: Isa, *, is_int8: bool = False) -> Core:
    """The one that its layers are modelled on. KeyError for an instruction set that is measured instead.

    What was calibrated are products in float32.
    """
    core = CORES[isa.name]
    return replace(core, calibration=1.0, error=None) if is_int8 else core


@dataclass(frozen=True)
class Work:
    """A product of family A: what of its kernel and of its weights costs time.

    `blocks`: all that are there, of `rows` × 1; `operands` of the epilogue; `groups` of rows of blocks that take turns;
    `inputs`: elements of X.
    """

    grid: tuple[int, int, int]
    channels: int
    rows: int
    tile: tuple[int, int]
    passes: int
    groups: int
    operands: int
    inputs: int
    blocks: int

    @property
    def weight_bytes(self) -> int:
        """Of values and index."""
        return self.blocks * (self.rows + 1) * 4

    @classmethod
    def of(cls, kernel: RowMajor, blocks: int) -> Work:
        return cls(
            kernel.grid, kernel.channels, kernel.rows, kernel.tile, kernel.passes, kernel.groups, len(kernel.operands),
            kernel.x.size, blocks,
        )  # fmt: skip


def cycles(core: Core, isa: Isa, work: Work) -> float:
    """Of one run on one thread."""
    (n, h, w), (th, tw) = work.grid, work.tile
    vectors, pixels = max(1, work.rows // isa.lanes("float32")), th * tw
    tiles = n * ceil_div(h, th) * ceil_div(w, tw)  # a lower last line is taken for a full one
    sums = vectors * pixels
    arithmetic, loads = sums * core.multiply_add, vectors + pixels + 1
    per_block = max(
        arithmetic / core.arithmetic, loads / core.loads, (arithmetic + loads + core.block) / core.issue, core.latency
    )
    per_row = core.tile + sums * (3 + work.operands) / core.loads
    in_registers = tiles * (work.blocks * per_block + ceil_div(work.channels, work.rows) * work.passes * per_row)
    reread = tiles * work.weight_bytes if work.weight_bytes / work.groups > core.first_cache / 2 else 0
    values = 4 * (work.inputs + n * h * w * work.channels * (1 + work.operands))
    # Since the last run other layers' weights came by; values were written by the layer before.
    far = work.weight_bytes + (values if values > core.second_cache else 0)
    return core.calibration * max(in_registers, reread / core.second_bytes, far / core.memory_bytes)


def microseconds(core: Core, isa: Isa, step: Step) -> float | None:
    """Of one step of a program; None for a kernel that there is no model of."""
    if not isinstance(step.call, (RowMajor, QuadProduct)):
        return None
    pointer = step.buffers[3].data
    assert pointer is not None
    blocks = int(pointer[-1])
    if isinstance(step.call, QuadProduct):
        return quad_cycles(core, isa, step.call, blocks) / core.ghz / 1e3
    return cycles(core, isa, Work.of(step.call, blocks)) / core.ghz / 1e3


def node_times(program: Program, isa: Isa) -> dict[str, float]:
    """Microseconds of every node whose steps are all modelled, with what is fused behind it."""
    core = core_for(isa)
    found: dict[str, float] = {}
    unknown: set[str] = set()
    for step in program.steps:
        taken = microseconds(core, isa, step)
        for node in step.nodes[:1]:
            if taken is None:
                unknown.add(node)
            else:
                found[node] = found.get(node, 0.0) + taken
    return {node: taken for node, taken in found.items() if node not in unknown}


def counted_us(core: Core, *, instructions: int, multiply_adds: int, memory: int) -> float:
    """What a step takes whose instructions were counted: the same roofs, without what waits for memory or for a sum."""
    cycles = max(multiply_adds * core.multiply_add / core.arithmetic, memory / core.loads, instructions / core.issue)
    return core.calibration * cycles / core.ghz / 1e3


def by_model(product: Product) -> Choice:
    """Blocks and tile with the fewest modelled cycles; the rule's choice where another is no better."""
    first = by_rule(product)
    if first.family != "row_major":
        return first
    blocks = {rows: round(product.density(rows) * _all_blocks(product, rows)) for rows in _heights(product, first)}
    core = core_for(product.isa)
    return min(_choices(product, first, blocks), key=lambda choice: _modelled(core, product, choice, blocks))


def _heights(product: Product, first: Choice) -> list[int]:
    """Of blocks, those that are not mostly beyond the last output."""
    lanes = product.lanes
    usual = (v * lanes for v in (1, 2, 4, 8) if v == 1 or v * lanes < 2 * len(product.matrix))
    return list(dict.fromkeys((first.rows, *usual)))


def _all_blocks(product: Product, rows: int) -> int:
    return ceil_div(len(product.matrix), rows) * int(product.matrix.shape[1])


def _choices(product: Product, first: Choice, heights: Iterable[int]) -> list[Choice]:
    """The rule's choice first: it wins among equals."""
    _, h, w = product.grid
    found = [first]
    for rows in heights:
        for most in range(1, most_pixels(product.isa, rows // product.lanes) + 1):
            found.append(Choice("row_major", rows, choose_tile(h, w, most), passes=first.passes))
    return list(dict.fromkeys(found))


def _modelled(core: Core, product: Product, choice: Choice, blocks: Mapping[int, int]) -> float:
    outputs, (n, h, w) = len(product.matrix), product.grid
    tiles = n * ceil_div(h, choice.tile[0]) * ceil_div(w, choice.tile[1])
    count, row_blocks = blocks[choice.rows], ceil_div(outputs, choice.rows)
    _, groups = choose_jobs(choice.order, 4 * count * choice.rows, product.input_bytes, tiles, row_blocks)
    operands = len(product.operands)
    work = Work(product.grid, outputs, choice.rows, choice.tile, choice.passes, groups, operands, product.x.size, count)
    return cycles(core, product.isa, work)
