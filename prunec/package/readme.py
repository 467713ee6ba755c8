"""`README.txt`: how to run the package, with the model's real inputs."""

from __future__ import annotations

from pathlib import Path

import jinja2

from prunec.package.manifest import Manifest, TensorRecord

_TEMPLATE = Path(__file__).with_name("readme.jinja")
_NUMPY = frozenset(
    "bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64 complex128".split()
)


def render_readme(manifest: Manifest, *, target_usage: str | None = None, recovery: str | None = None) -> str:
    """Plain text. `target_usage` is what a back end says about running its own artifact, `recovery` how was trained.

    A symbolic dimension is shown by name and stands as 1 in the example.
    """
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        manifest=manifest,
        feeds=[(record.name, _example(record)) for record in manifest.inputs],
        needs_ml_dtypes=any(record.dtype not in _NUMPY | {"string"} for record in manifest.inputs),
        tensors=[
            (role, record.name, record.dtype, _shape(record))
            for role, records in (("input", manifest.inputs), ("output", manifest.outputs))
            for record in records
        ],
        target_usage=target_usage,
        recovery=recovery,
    )


def _example(record: TensorRecord) -> str:
    """A numpy expression for an array that the model accepts."""
    sizes = tuple(dim if isinstance(dim, int) else 1 for dim in record.shape or ())
    if record.dtype == "string":
        return f'np.full({sizes}, "", dtype=object)'
    module = "np" if record.dtype in _NUMPY else "ml_dtypes"
    return f"np.zeros({sizes}, dtype={module}.{record.dtype})"


def _shape(record: TensorRecord) -> str:
    if record.shape is None:
        return "any shape"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in record.shape) + "]"
