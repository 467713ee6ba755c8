"""`--dump DIR`: every stage of the model as a file, for people who want to see for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import onnx_ir as ir

from prunec.api.stages import Stage
from prunec.diagnostics import PrunecError
from prunec.package.errors import os_errors
from prunec.package.writer import save_model
from prunec.plan.structures import StageName

STEPS: tuple[StageName, ...] = ("depth", "channels", "head-width")
STAGES = ("canonical", "masked", "cut", *(f"{kind}-{step}" for step in STEPS for kind in ("masked", "cut")), "model")


class Dump:
    """Writes STAGE.onnx into a folder, as soon as the stage is there: a check that fails is when they are needed.

    Without a folder it writes nothing. Ctrl-C takes back what was written.

    Raises PrunecError PC607 where a file is there already and `force` is not given; PC604 to PC606 as packages do.
    """

    def __init__(self, folder: Path | None, *, force: bool) -> None:
        self.folder = folder
        self.force = force
        self._made_folder = False

    def __enter__(self) -> Dump:
        if self.folder is not None:
            there = [f"{stage}.onnx" for stage in STAGES if (self.folder / f"{stage}.onnx").exists()]
            if there and not self.force:
                hint = "pass --force to replace them, or name another folder"
                raise PrunecError("PC607", f"{', '.join(there)} is there already", where=str(self.folder), hint=hint)
            with os_errors(self.folder):
                self._made_folder = not self.folder.exists()
                self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def save(self, stage: str, model: ir.Model) -> None:
        if self.folder is not None:
            assert stage in STAGES
            with os_errors(self.folder):
                save_model(model, self.folder / f"{stage}.onnx")

    def save_steps(self, steps: Sequence[Stage]) -> None:
        """The reference and the result of every step; only those of several steps have its name in theirs."""
        for step in steps if self.folder is not None else ():
            suffix = f"-{step.name}" if len(steps) > 1 else ""
            self.save(f"masked{suffix}", step.masked())
            self.save(f"cut{suffix}", step.after)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder is None or kind is None or issubclass(kind, Exception):
            return
        for stage in STAGES:
            for name in (f"{stage}.onnx", f"{stage}.onnx.data"):
                (self.folder / name).unlink(missing_ok=True)
        if self._made_folder:
            self.folder.rmdir()
