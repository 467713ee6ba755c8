"""What every `run_*` module does in a peer's process: read the job, prune under limits, write what came of it.

The job's folder holds `job.json`, `model.onnx`, `samples.npz` (batches of samples of equal shape, BATCH/INPUT) and
`answers.npz` (the dense model's outputs for the first few of the first batch). The runner leaves `pruned.onnx` and
`result.json` ({"seconds": of processor time} or {"failed": reason}). Imports no prunec: the environment has none.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """`kind`: 2:4, unstructured or channels; `share` of zeros or channels that go; `model`: its name in the zoo."""

    folder: Path
    model: str
    method: str
    kind: str
    share: float
    seed: int

    def dense(self) -> onnx.ModelProto:
        return onnx.load(self.folder / "model.onnx")

    def batches(self, size: int) -> list[Arrays]:
        """All samples, at most `size` at a time."""
        stored: dict[str, Arrays] = {}
        with np.load(self.folder / "samples.npz") as arrays:
            for key in arrays.files:
                number, _, name = key.partition("/")
                stored.setdefault(number, {})[name] = arrays[key]
        return [
            {name: array[i : i + size] for name, array in batch.items()}
            for batch in stored.values()
            for i in range(0, len(next(iter(batch.values()))), size)
        ]

    def answers(self) -> list[np.ndarray]:
        """Outputs of the dense model, in order, for as many samples of the first batch as their first axis has."""
        with np.load(self.folder / "answers.npz") as arrays:
            return [arrays[name] for name in arrays.files]


def serve(prune: Callable[[Job], onnx.ModelProto]) -> None:
    """Run `prune` on the job whose folder is the first argument.

    More processor time than the job allows ends the process (SIGXCPU), more memory raises MemoryError.
    """
    folder = Path(sys.argv[1])
    text = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    seconds, memory = int(text.pop("limit_s")), int(text.pop("memory_bytes"))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    job = Job(folder, **text)
    start = time.process_time()
    try:
        model = prune(job)
    except Exception as error:
        lines = str(error).strip().splitlines()
        _write(folder, {"failed": f"{type(error).__name__}: {lines[0] if lines else ''}".strip(": ")})
        raise
    took = time.process_time() - start
    onnx.save(model, folder / "pruned.onnx")
    _write(folder, {"seconds": took})


def _write(folder: Path, result: dict[str, object]) -> None:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
