"""The generated C file of a package: tables of tensors, arguments and steps, and the file with the weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Kernel
from prunec.backends.cpu.lower.memory import plan_arena
from prunec.backends.cpu.lower.program import Buffer, Program, Step, Tensor

_HEADER_BYTES = 64
_MAGIC = b"PRUNECW1"
_CODES = {"float32": (2, 32), "int32": (0, 32), "int64": (0, 64), "uint8": (1, 8), "int8": (0, 8)}
_PLACES = {"arena": "PLACE_ARENA", "weights": "PLACE_WEIGHTS", "input": "PLACE_INPUT", "output": "PLACE_OUTPUT"}


class Weights:
    """The weights file: a header (magic, size, identity), then every array once, at multiples of 64 bytes.

    With `in_halves` the float32 arrays that half precision holds exactly come first, as such: `halves` numbers, which
    are twice as long in memory as in the file. `bytes` and `offsets` are those in memory, `stored_bytes` the file's.
    """

    def __init__(self, buffers: Iterable[Buffer], *, in_halves: bool = False) -> None:
        self.offsets: dict[Buffer, int] = {}
        self.halves = 0
        chunks, known, at = [], dict[bytes, int](), _HEADER_BYTES
        digest = hashlib.sha256()
        fits = {buffer: in_halves and _fits_in_halves(buffer) for buffer in buffers}
        for buffer in sorted(fits, key=lambda buffer: not fits[buffer]):
            assert buffer.data is not None
            data = buffer.data.tobytes()
            own = hashlib.sha256(data).digest()
            if own not in known:
                known[own] = at
                padded = data + b"\0" * (-len(data) % 64)
                digest.update(own)
                at += len(padded)
                if fits[buffer]:
                    padded = np.frombuffer(padded, np.float32).astype(np.float16).tobytes()
                    self.halves += len(padded) // 2
                chunks.append(padded)
            self.offsets[buffer] = known[own]
        self.bytes = at
        self.stored_bytes = at - 2 * self.halves
        self.identity = digest.digest()
        self._chunks = chunks

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            header = _MAGIC + self.bytes.to_bytes(8, "little") + self.identity
            file.write(header + b"\0" * (_HEADER_BYTES - len(header)))
            file.writelines(self._chunks)


def _fits_in_halves(buffer: Buffer) -> bool:
    """Whether rounding its numbers to half precision changes none of them."""
    data = buffer.data
    if data is None or data.dtype != np.float32 or not data.size:
        return False
    with np.errstate(over="ignore"):
        return bool(np.array_equal(data.astype(np.float16).astype(np.float32), data)) and bool(np.isfinite(data).all())


def weights_of(programs: Sequence[Program], *, in_halves: bool = False) -> Weights:
    """Weights of all programs in the order in which the steps read them; what they have in common is there once."""
    steps = (step for program in programs for step in program.steps)
    return Weights(
        dict.fromkeys(b for step in steps for b in step.buffers if b.place == "weights"), in_halves=in_halves
    )


def kernels_of(programs: Sequence[Program]) -> list[Kernel]:
    """The different kernels of all programs, in order of first use."""
    return list({kernel.symbol(): kernel for program in programs for kernel in program.kernels()}.values())


def program_source(programs: Sequence[Program], weights: Weights, isa: Isa) -> str:
    """The C file: one program per shape of the inputs, over one arena and one file of weights."""
    lines = ['#include "program.h"', ""]
    lines += [
        f"extern int __tvm_ffi_{k.symbol()}(void *, ffi_any *, int32_t, ffi_any *);" for k in kernels_of(programs)
    ]
    arguments, steps, shapes, count, arena_bytes = list[str](), list[str](), list[str](), 0, 0
    for number, program in enumerate(programs):
        offsets, own_bytes = plan_arena(program.steps)
        arena_bytes = max(arena_bytes, own_bytes)
        lines += ["", *_tensors(f"inputs{number}", program.inputs), *_tensors(f"outputs{number}", program.outputs)]
        shapes.append(f"    {{inputs{number}, outputs{number}, {len(steps)}, {len(program.steps)}}},")
        for step in program.steps:
            for buffer, elements in zip(step.buffers, _elements(step), strict=True):
                arguments.append(_argument(buffer, elements, offsets, weights))
            steps.append(_step(step, count))
            count += len(step.buffers)
    lines += ["static const program_shape shapes[] = {", *shapes, "    {0}};", ""]
    lines += ["static const program_argument arguments[] = {", *arguments, "    {0}};", ""]
    lines += ["static const program_step steps[] = {", *steps, "    {0}};", ""]
    flags = "".join(f"{json.dumps(flag)}, " for flag in isa.flags)
    lines += [f"static const char *const flags[] = {{{flags}NULL}};", ""]
    identity = ", ".join(map(str, weights.identity))
    first = programs[0]
    lines += [
        "const prunec_program prunec_the_program = {",
        f"    shapes, {len(shapes)}, {len(first.inputs)}, {len(first.outputs)}, arguments, {count}, steps,",
        f"    {arena_bytes}u, {weights.bytes}u, {weights.halves}u, {{{identity}}}, {json.dumps(isa.name)}, flags}};",
        "",
    ]
    return "\n".join(lines)


def header_source(header: str, programs: Sequence[Program]) -> str:
    """`prunec.h` with a description of this model at its end."""
    lines = ["/* This model, in the order of the arrays:", " *"]
    for number, program in enumerate(programs):
        lines += [f" * shape {number}"] if len(programs) > 1 else []
        for kind, tensors in (("input", program.inputs), ("output", program.outputs)):
            for place, (name, tensor) in enumerate(tensors.items()):
                shape = "".join(f"[{n}]" for n in tensor.shape)
                lines.append(f" *   {kind} {place}: {tensor.dtype} {_words(name)}{shape}")
    return "\n".join([header, *lines, " */", ""])


def _words(name: str) -> str:
    """A name that cannot end the comment."""
    return json.dumps(name).strip('"').replace("*/", "* /")


def _tensors(name: str, tensors: dict[str, Tensor]) -> list[str]:
    lines = []
    for number, tensor in enumerate(tensors.values()):
        shape = ", ".join(map(str, tensor.shape)) or "0"
        lines.append(f"static const int64_t {name}_shape{number}[] = {{{shape}}};")
    lines.append(f"static const prunec_tensor {name}[] = {{")
    for number, (own, tensor) in enumerate(tensors.items()):
        size = tensor.buffer.bytes
        lines.append(
            f'    {{{json.dumps(own)}, "{tensor.dtype}", {len(tensor.shape)}, {name}_shape{number}, {size}u}},'
        )
    return [*lines, "    {0}};", ""]


def _elements(step: Step) -> list[int]:
    """Sizes as the call expects them. Kernels are written for the dense layer; those of a sparse one find less."""
    if isinstance(step.call, Kernel):
        return [argument.size for argument in step.call.arguments()]
    return [buffer.elements for buffer in step.buffers]


def _argument(buffer: Buffer, elements: int, offsets: dict[Buffer, int], weights: Weights) -> str:
    at = {"arena": offsets.get(buffer, 0), "weights": weights.offsets.get(buffer, 0)}.get(buffer.place, buffer.number)
    code, bits = _CODES[buffer.dtype]
    return f"    {{{_PLACES[buffer.place]}, {at}u, {elements}, {code}, {bits}}},"


def _step(step: Step, first: int) -> str:
    call, name = step.call, json.dumps(", ".join(step.nodes))
    count = len(step.buffers)
    if isinstance(call, Kernel):
        return f"    {{CALL_KERNEL, __tvm_ffi_{call.symbol()}, {first}, {count}, {{0}}, {name}}},"
    values = ", ".join(map(str, call.values()))
    return f"    {{{call.code}, 0, {first}, {count}, {{{values}}}, {name}}},"


def kernel_sizes(program: Program) -> None:
    """Every buffer a kernel gets is one it was written for; AssertionError where the lowering broke its own rule.

    Weights may be shorter: kernels are written for the dense layer, sparse ones share them.
    """
    for step in program.steps:
        if not isinstance(step.call, Kernel):
            continue
        for argument, buffer in zip(step.call.arguments(), step.buffers, strict=True):
            assert argument.dtype == buffer.dtype, (step.call, argument)
            assert buffer.place == "weights" or argument.size == buffer.elements, (step.call, argument, buffer)
