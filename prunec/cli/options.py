"""Options and arguments that several commands share, and what turns them into values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prunec.backends.base import Range

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file.", show_default=False)]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape", metavar="NAME=1,3,224,224", help="Make an input's dynamic axes static. May be repeated."
    ),
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads for running models.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]

Target = Annotated[str, typer.Option("--target", help="What to compile for; `prunec targets` lists them.")]
Pattern = Annotated[
    str, typer.Option("--pattern", help="auto, channel, or zeros: 2:4, N:M (keep N of M), block:4x1, unstructured …")
]
Solver = Annotated[
    str | None,
    typer.Option(
        "--solver",
        help="Effort for zeros: fast, balanced (default), best; or one solver: magnitude, wanda, sparsegpt …",
        metavar="NAME",
    ),
]
Allocation = Annotated[
    str | None,
    typer.Option(
        "--allocation",
        help="How zeros are spread: uniform, erk, lamp, global, loss; for a time four are compared.",
        metavar="NAME",
    ),
]
Losses = Annotated[
    str | None,
    typer.Option(
        "--losses",
        metavar="masked|solved|zeroth-order",
        help="What layers are compared by, for zeros by loss or by time: masks, solved layers, or small changes.",
    ),
]
Permute = Annotated[
    bool | None,
    typer.Option(
        "--permute/--no-permute",
        help="Reorder channels so that zeros cost less (default with --solver best).",
    ),
]
Finer = Annotated[
    float | None,
    typer.Option("--finer", help="Layers take finer blocks that cost at most this share of their time more, 0.1 say."),
]
Polish = Annotated[
    int,
    typer.Option("--polish", metavar="N", help="Beside a budget of time: judge N more models that take the same time."),
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", metavar="NAME|FILE", help="How to choose and refit; `prunec recipes`.")
]
CriterionName = Annotated[str | None, typer.Option("--criterion", help="Score channels by this, not the recipe's.")]
ScopeName = Annotated[str | None, typer.Option("--scope", help="layer, global or loss, instead of the recipe's.")]
Sparsity = Annotated[
    float | None, typer.Option("--sparsity", help="Share of the prunable layers' weights that goes, 0.5 for half.")
]
Flops = Annotated[float | None, typer.Option("--flops", help="Share of the multiply-accumulates that may remain.")]
Params = Annotated[float | None, typer.Option("--params", help="Share of the parameters that may remain.")]
Speedup = Annotated[
    float | None,
    typer.Option("--speedup", help="Measured here (arm64: modelled): so many times as fast as the dense model."),
]
LatencyMs = Annotated[
    float | None,
    typer.Option("--latency-ms", help="Measured here (arm64: modelled): so many milliseconds for one run."),
]
SizeMb = Annotated[float | None, typer.Option("--size-mb", help="Megabytes (10^6 bytes) that model.onnx may have.")]
Calib = Annotated[
    str | None,
    typer.Option("--calib", metavar="FILE.npz|DIR|module:function", help="Real inputs; synthetic ones without it."),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", metavar="module:function", help="Your own quality number; agreement without it."),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=1,
        help="Calibration samples (default: 128 to 1024, for zeros to 4096, by the cost of the model).",
    ),
]
Include = Annotated[
    list[str] | None, typer.Option("--include", metavar="LAYER", help="Cut these layers only (* and ? match).")
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="LAYER", help="Leave these layers whole (* and ? match).")
]
Recover = Annotated[
    str | None,
    typer.Option(
        "--recover", metavar="none|bias|blocks|full", help="Train what is left against the dense model, no labels."
    ),
]
RecoverMinutes = Annotated[
    float | None, typer.Option("--recover-minutes", help="Most time that --recover may take; 20 without it.")
]
RecoverPrecision = Annotated[
    str | None,
    typer.Option(
        "--recover-precision",
        metavar="fp32|bf16|auto",
        help="What --recover multiplies in; auto is bf16 where the processor has it.",
    ),
]
RecoverSoup = Annotated[
    int | None,
    typer.Option("--recover-soup", help="Train so often in these minutes; keep the mean where it is better."),
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Prune in so many rounds, and train with --recover after each.")
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Work everything out anew and keep nothing for the next run.")
]
NoBuild = Annotated[
    bool, typer.Option("--no-build", help="Make the package without the device that it is for; build it there.")
]
ShapeRange = Annotated[
    list[str] | None,
    typer.Option(
        "--shape-range",
        metavar="NAME=1x3:8x3:32x3",
        help="Least, usual and largest shape of a dynamic input, for TensorRT. May be repeated.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="int8 for onnx, cpu, wasm, arm64 (static, from the calibration data); mixed for cpu and a budget of time "
        "or drop: layer by layer; fp16 (default) or int8 for TensorRT.",
    ),
]
Rounding = Annotated[
    str | None,
    typer.Option(
        "--rounding",
        metavar="NAME",
        help="How int8 weights are rounded: nearest, adaround, sweep, joint (default: sweep, with zeros found anew) or "
        "best (all of them, layer by layer).",
    ),
]
Products = Annotated[
    str | None,
    typer.Option("--products", help="Write matrix products as matmul or gemm for TensorRT; as they are without it."),
]
Tune = Annotated[
    str,
    typer.Option("--tune", help="none, quick or full: choose generated kernels by measuring them on this machine."),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", metavar="beside|embedded", help="Of a wasm package: a file of their own, or in the .wasm."
    ),
]
Storage = Annotated[
    str, typer.Option("--storage", help="fp32, or fp16: weights of a wasm or arm64 package, rounded and half as large.")
]
RelaxedSimd = Annotated[
    bool,
    typer.Option("--relaxed-simd", help="Fused multiply-adds in a wasm package; results may differ by host."),
]
Demo = Annotated[
    bool, typer.Option("--demo", help="A page in the wasm package, with the dense model beside the pruned one.")
]
DemoLabels = Annotated[
    str | None, typer.Option("--demo-labels", metavar="FILE", help="Names of classes for the page, a line each.")
]
DemoVocabulary = Annotated[
    str | None,
    typer.Option("--demo-vocabulary", metavar="FILE", help="WordPiece vocabulary, for a page that reads texts."),
]
RoundTo = Annotated[
    int | None, typer.Option("--round-to", min=1, help="Keep multiples of this many channels, not the target's.")
]
Structures = Annotated[
    str | None,
    typer.Option(
        "--structures",
        metavar="LIST",
        help="What may go: channels, head-width, residual, experts, depth; a comma list.",
    ),
]


def shape_ranges(texts: list[str] | None) -> dict[str, Range] | None:
    """The ranges by input name. Raises PrunecError PC437."""
    from prunec.backends.tensorrt.limits import parse_ranges

    return parse_ranges(texts) if texts else None


def input_shapes(texts: list[str] | None) -> dict[str, list[int]] | None:
    """The shapes by name. Raises PrunecError PC016."""
    from prunec.frontend.input_shapes import parse_input_shapes

    return parse_input_shapes(texts) if texts else None


def input_shape_sets(texts: list[str] | None) -> list[dict[str, list[int]]] | dict[str, list[int]] | None:
    """The shapes by name; a list where there are several to compile for. Raises PrunecError PC016."""
    from prunec.frontend.input_shapes import parse_shape_sets

    sets = parse_shape_sets(texts or ())
    return sets if len(sets) > 1 else next(iter(sets), None)
