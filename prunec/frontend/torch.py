"""torch.nn.Module → `Source`: traced by `torch.export`, translated by torch's own ONNX exporter, no file in between.

The module is traced in evaluation mode and gets its modes back. Nothing is optimised on the way, so every parameter is
an initializer of the same name; `Source.sha256` is the hash of the graph and its weights. What is a copy of the
module's weights here does not change when the module is trained on.

| code  | says                                                          |
|-------|---------------------------------------------------------------|
| PC030 | torch is not installed                                        |
| PC031 | example inputs are missing or are no tensors                  |
| PC032 | the module cannot be traced, with the line that stands in the way |
| PC033 | a torch operator that has no ONNX translation                 |
| PC034 | neither a file nor a torch.nn.Module                          |
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import TopologicalSortPass

from prunec.diagnostics import PrunecError
from prunec.frontend import operators, structure, weights
from prunec.frontend.input_shapes import apply_input_shapes
from prunec.frontend.onnx import Source
from prunec.frontend.torch_extra import require_torch

_ESCAPES = re.compile(r"\x1b?\[\d+m")


def load_module(
    module: Any,
    example_inputs: Any,
    *,
    dynamic_shapes: Any = None,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
) -> Source:
    """Trace `module` on `example_inputs` and check it as a file would be.

    `example_inputs`: a tensor, a tuple or list of positional arguments, or a dict of keyword arguments.
    `dynamic_shapes`: as in `torch.export.export`; None: every shape is that of the examples.

    Raises:
        PrunecError PC030 to PC034: see the table; PC005 and up: what a file would be refused for.
    """
    require_torch("a torch.nn.Module")
    args, kwargs = split_inputs(example_inputs)
    program = trace(module, args, kwargs, dynamic_shapes)
    model = translate(program, type(module).__name__)
    found = operators.check(model)
    structure.check_graph(model)
    weights.check(model)
    if input_shapes:
        apply_input_shapes(model, input_shapes)
    return Source(model, Path(f"{type(module).__name__}.onnx"), fingerprint(model), found, is_file=False)


def split_inputs(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments. PC031 where there is no tensor."""
    import torch

    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        args, kwargs = (), dict(example_inputs)
    elif isinstance(example_inputs, tuple | list):
        args, kwargs = tuple(example_inputs), {}
    else:
        args, kwargs = (), {}
    if not any(isinstance(leaf, torch.Tensor) for leaf in torch.utils._pytree.tree_leaves((args, kwargs))):
        raise PrunecError(
            "PC031",
            "a module is traced with example inputs, and there is no tensor among them",
            where="example_inputs",
            hint="pass a tensor, a tuple of positional arguments, or a dict of keyword arguments",
        )
    return args, kwargs


def trace(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> Any:
    """The `torch.export.ExportedProgram` of `module` in evaluation mode; its modes are put back. PC032."""
    import torch

    with in_eval_mode(module), _quiet():
        try:
            return torch.export.export(module, args, kwargs or None, dynamic_shapes=dynamic_shapes)
        except Exception as error:  # tracing runs the user's code, which may raise anything
            raise _untraceable(error, module) from error


def translate(program: Any, name: str) -> ir.Model:
    """The program as `onnx_ir`, with copies of its weights and nothing that depends on the machine. PC033."""
    import torch

    with _quiet():
        try:
            model: ir.Model = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False).model
        except Exception as error:  # the exporter reports through exceptions of many kinds
            raise _untranslatable(error) from error
    model.graph.name = name
    model.producer_name, model.producer_version, model.doc_string = "prunec", None, None
    _forget_origins(model)
    _copy_weights(model)
    TopologicalSortPass()(model)
    return model


@contextlib.contextmanager
def in_eval_mode(module: Any) -> Iterator[None]:
    """Evaluation mode inside, every submodule's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def fingerprint(model: ir.Model) -> str:
    """sha256 over graph, types and weights, in hexadecimal."""
    digest = hashlib.sha256()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        digest.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
    for value in [*model.graph.inputs, *model.graph.outputs]:
        digest.update(f"{value.name} {value.dtype} {value.shape}".encode())
    for name, value in sorted(model.graph.initializers.items()):
        assert value.const_value is not None
        digest.update(f"{name} {value.const_value.dtype} {value.const_value.shape}".encode())
        digest.update(value.const_value.tobytes())
    return digest.hexdigest()


def _forget_origins(model: ir.Model) -> None:
    """Drop stack traces and scopes: they hold the paths of the user's source files."""
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for output in node.outputs:
                output.metadata_props.clear()
        for value in [*graph.inputs, *graph.initializers.values()]:
            value.metadata_props.clear()


def _copy_weights(model: ir.Model) -> None:
    """Own the data: the exporter's tensors are views of the module's parameters."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            assert tensor is not None
            array = np.array(tensor.numpy())
            value.const_value = ir.Tensor(array, dtype=tensor.dtype, shape=ir.Shape(array.shape), name=name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress, its remarks about packages that are not there, and torch's own warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch._dynamo", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _untraceable(error: Exception, module: Any) -> PrunecError:
    text = str(error).strip() or type(error).__name__
    reason = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if type(error).__module__ == "builtins" and not isinstance(error, RuntimeError):
        reason = f"{type(error).__name__}: {reason}"
    where = _user_line(error, text) or type(module).__name__
    return PrunecError("PC032", f"torch.export cannot trace the module: {reason[:300]}", where=where, hint=_hint(text))


def _hint(text: str) -> str:
    if "data-dependent" in text or "control flow" in text:
        return "the code branches on values of a tensor: use torch.where or torch.cond, or take the branch out"
    if "onstraint" in text or "dynamic" in text.lower():
        return "the code fixes a dimension that dynamic_shapes declares dynamic: leave it static, or mark it Dim.AUTO"
    if "numpy" in text:
        return "leave numpy out of forward: torch operations only"
    return "check that module(*example_inputs) runs, then that torch.export.export(module, example_inputs) does"


def _user_line(error: BaseException, text: str) -> str | None:
    """The last line of the user's own code on the way to the error, as "file.py:12: code"."""
    found = [
        (Path(path).name, number, code.strip())
        for path, number, code in re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n?([^\n]*)', text)
        if _is_users(path)
    ]
    frames = [
        (Path(frame.filename).name, str(frame.lineno), frame.line or "")
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_users(frame.filename)
    ]
    lines = found or [frame for frame in frames if frame[2]]
    if not lines:
        return None
    name, number, code = lines[-1]
    return f"{name}:{number}: {code}"[:200]


def _is_users(path: str) -> bool:
    """Whether a source file is neither the standard library's nor one of the packages that trace."""
    import onnxscript
    import torch

    packages = [Path(str(package.__file__)).parent for package in (torch, onnxscript, ir)]
    file, standard = Path(path), Path(sysconfig.get_path("stdlib"))
    is_standard = file.is_relative_to(standard) and "site-packages" not in file.parts
    is_tracer = any(file.is_relative_to(package) for package in packages) or file.resolve() == Path(__file__).resolve()
    return file.is_absolute() and not is_standard and not is_tracer


def _untranslatable(error: Exception) -> PrunecError:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    text = _ESCAPES.sub("", str(causes[-1])).strip()
    reason = text.splitlines()[0] if text else type(causes[-1]).__name__
    missing = re.search(r"OpOverload\(op='([\w.]+)'", text)
    where = missing.group(1).replace("aten.", "torch.ops.aten.") if missing else None
    message = f"no ONNX translation of {where}" if where else f"torch.onnx cannot translate the module: {reason[:300]}"
    hint = "replace the operation in forward, or register an ONNX translation with torch.onnx"
    return PrunecError("PC033", message, where=where, hint=hint)
