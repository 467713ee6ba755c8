"""Files of a package's own folder: the same inputs give the same bytes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import onnx_ir as ir

from prunec.backends.base import Range
from prunec.backends.tensorrt.limits import is_dynamic
from prunec.frontend.input_shapes import real_inputs
from prunec.package.jsonfile import dumps

_BACKENDS = Path(__file__).parent.parent
_HOME = re.compile(r"prunec\.backends\.\w+\.scripts\.")
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every entry of a .npz: a zip file has times, and ours must not."""


def write_text(path: Path, text: str) -> None:
    """UTF-8 with LF line ends on every system."""
    path.write_bytes(text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    write_text(path, dumps(document))


def write_scripts(folder: Path, scripts: Sequence[str]) -> None:
    """Copies of modules below `prunec.backends`, importing each other from the same folder."""
    for script in scripts:
        source = _BACKENDS / f"{script.replace('.', '/')}.py"
        write_text(folder / source.name, _HOME.sub("", source.read_text(encoding="utf-8")))


def write_template(path: Path, template: str, **values: Any) -> None:
    """`template` below `prunec.backends`, filled."""
    write_text(path, render(template, **values))


def render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string((_BACKENDS / template).read_text(encoding="utf-8")).render(**values)


def rows_of(model: ir.Model, ranges: Mapping[str, Range]) -> list[tuple[Any, ...]]:
    """(name, least, usual, largest) of every dynamic input."""
    return [(str(v.name), *ranges[str(v.name)]) for v in real_inputs(model) if is_dynamic(v)]


def vectors(inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> bytes:
    """A .npz of `in:NAME` and `out:NAME` without times."""
    found = {**{f"in:{n}": a for n, a in inputs.items()}, **{f"out:{n}": a for n, a in outputs.items()}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in found.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _FIRST_TIME), member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
