"""Write the folder `wasm`: the module, its weights, and an npm package around them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.compiler import write_object
from prunec.backends.cpu.kernels.single_thread import ALIGNMENT, workspace_bytes
from prunec.backends.cpu.lower.memory import plan_arena
from prunec.backends.cpu.lower.program import Program
from prunec.backends.cpu.source import kernel_sizes, kernels_of, program_source, weights_of
from prunec.backends.cross.feeds import describe
from prunec.backends.cross.half import Storage
from prunec.backends.cross.spec import SPEC
from prunec.backends.wasm.layout import FOLDER, MODULE, WEIGHTS
from prunec.backends.wasm.link import STACK_BYTES, link
from prunec.backends.wasm.spec import Placement, WasmSpec
from prunec.diagnostics import PrunecError
from prunec.package.jsonfile import dumps

MOST_BYTES = 2**32 - 2**16
"""What a 32-bit memory can hold: its last page is kept free, so that no address wraps."""
_MODULE_FOLDER = Path(__file__).parent / "module"
_COPIED = ("index.js",)
_ARRAYS = {"float32": "Float32Array", "int32": "Int32Array", "int64": "BigInt64Array", "uint8": "Uint8Array"}


def write_folder(
    program: Program,
    bools: Sequence[str],
    isa: Isa,
    package: Path,
    *,
    name: str,
    placement: Placement = "beside",
    storage: Storage = "fp32",
) -> Path:
    """Write `package`/wasm and return it. `bools`: names of inputs and outputs that are bools.

    Raises:
        PrunecError PC453: no C compiler, or it fails; PC465: more than a 32-bit memory holds.
    """
    kernel_sizes(program)
    weights = weights_of([program], in_halves=storage == "fp16")
    _, arena = plan_arena(program.steps)
    kernels = kernels_of([program])
    workspace = max((workspace_bytes(kernel, isa) for kernel in kernels), default=0)
    values = sum(_padded(tensor.buffer.bytes) for tensor in (*program.inputs.values(), *program.outputs.values()))
    twice = weights.stored_bytes if placement == "embedded" and weights.halves else 0
    check_memory(weights.bytes + twice + arena + workspace + values + STACK_BYTES + 2**20)
    folder = package / FOLDER
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="prunec-wasm-") as scratch:
        work = Path(scratch)
        weights.write(work / WEIGHTS)
        objects = [Path("kernels.o")] if kernels else []
        if kernels:
            write_object(kernels, isa, work / "kernels.o")
        count = sum(len(step.buffers) for step in program.steps)
        sizes = {
            "WEIGHTS_BYTES": weights.bytes, "WEIGHTS_HALVES": weights.halves,
            "ARENA_BYTES": max(arena, ALIGNMENT), "VALUES_BYTES": max(values, 1),
            "WORKSPACE_BYTES": max(workspace, ALIGNMENT), "ARGUMENTS": max(count, 1),
        }  # fmt: skip
        sources = {
            "program.c": program_source([program], weights, isa),
            "sizes.h": "".join(f"#define {key} {value}u\n" for key, value in sizes.items()),
        }
        linked = link(objects, sources, work / WEIGHTS if placement == "embedded" else None, work)
        shutil.copyfile(linked, folder / MODULE)
        if placement == "beside":
            shutil.copyfile(work / WEIGHTS, folder / WEIGHTS)
    spec = WasmSpec(
        name=name, simd="relaxed" if "+relaxed-simd" in isa.attributes else "simd128",
        inputs=describe(program.inputs, bools), outputs=describe(program.outputs, bools), weights=placement,
        storage=storage, weights_bytes=weights.stored_bytes, arena_bytes=arena,
        memory_bytes=memory_bytes(folder / MODULE),
        steps=tuple(", ".join(step.nodes) for step in program.steps),
    )  # fmt: skip
    _write_module(spec, folder)
    return folder


def check_memory(wanted: int) -> None:
    """Raise PrunecError PC465 for more than a 32-bit memory holds."""
    if wanted > MOST_BYTES:
        message = f"the model needs {wanted / 2**30:.1f} GiB, and a WebAssembly memory holds 4"
        raise PrunecError("PC465", message, where="--target wasm", hint="a smaller --input-shape, or a smaller budget")


def memory_bytes(module: Path) -> int:
    """The initial memory of a module, from its own memory section (WebAssembly core specification, 5.5.8)."""
    data = module.read_bytes()
    at = 8
    while at < len(data):
        section, (size, at) = data[at], _leb(data, at + 1)
        if section == 5:
            _, inner = _leb(data, at)
            pages, _ = _leb(data, inner + 1)
            return pages * 2**16
        at += size
    raise AssertionError("a module without a memory")


def _leb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write_module(spec: WasmSpec, folder: Path) -> None:
    document = spec.model_dump(mode="json")
    (folder / SPEC).write_bytes(dumps(document).encode())
    (folder / "model.js").write_text(f"export default {dumps(document).rstrip()};\n", encoding="utf-8")
    for own in _COPIED:
        shutil.copyfile(_MODULE_FOLDER / own, folder / own)
    types = (_MODULE_FOLDER / "index.d.ts").read_text(encoding="utf-8")
    for kind, tensors in (("Inputs", spec.inputs), ("Outputs", spec.outputs)):
        fields = "".join(f"  {json.dumps(t.name)}: {_ARRAYS[t.dtype]}; // {list(t.shape)}\n" for t in tensors)
        types = types.replace(f"export interface {kind} {{}}", f"export interface {kind} {{\n{fields}}}")
    (folder / "index.d.ts").write_text(types, encoding="utf-8")
    files = [*_COPIED, "model.js", SPEC, "index.d.ts", MODULE, *([WEIGHTS] if spec.weights == "beside" else [])]
    package = {
        "name": _npm_name(spec.name), "version": "0.0.0", "description": "A model that prunec compiled to WebAssembly",
        "type": "module", "main": "./index.js", "types": "./index.d.ts", "files": sorted(files),
        "exports": {".": {"types": "./index.d.ts", "default": "./index.js"}, "./*": "./*"}, "sideEffects": False,
    }  # fmt: skip
    (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")


def _npm_name(name: str) -> str:
    """Lower case, digits and dashes: what npm takes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
