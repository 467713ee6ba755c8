"""`--demo`: a page for the browser, driven in headless Chromium, and the text tokeniser in Node."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

pytest.importorskip("tvm", reason="needs the [tvm] extra")
pytest.importorskip("wasmtime", reason="needs the [cross] extra")

import prunec as public
from benchmarks.chromium import Browser, chromium
from prunec.backends.wasm.demo import _scales
from prunec.backends.wasm.serving import serving
from prunec.models.wordpiece import WordPiece
from tests.cli.helpers import prunec, refuses
from tests.cli.networks import residual
from tests.graph.builder import Builder

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "small", "net", "##work", "##s", "ran", ",", "cafe", "日", "##本"]
TARGET = ("--target", "wasm", "--pattern", "block:8x1", "--sparsity", "0.5")
FAST = ("--samples", "10", "--solver", "fast", "--no-cache", "--no-compensate", "--no-measure")
PAGE = 'import(new URL("page.js", location))'


def reader() -> ir.Model:
    """A picture, a text and a plain number: one kind of input each; four scores."""
    b = Builder(0)
    image = b.input("image", [1, 3, 12, 10])
    ids = b.input("input_ids", [1, 8], TensorProto.INT64)
    mask = b.input("attention_mask", [1, 8], TensorProto.INT64)
    gain = b.input("gain", [1, 1])
    seen = b.op("Flatten", [b.op("GlobalAveragePool", [b.relu(b.conv(b.relu(b.conv(image, 16)), 16))])])
    words = b.op("Gather", [b.weight(len(PIECES), 16), ids])
    counted = b.op("Mul", [words, b.op("Unsqueeze", [b.op("Cast", [mask], to=1), b.const(np.array([2]))])])
    read = b.op("ReduceMean", [counted, b.const(np.array([1]))], keepdims=0)
    b.output(b.gemm(b.op("Mul", [b.op("Add", [seen, read]), gain]), 4))
    return b.model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, what goes with its page, and `out`: its package."""
    path = tmp_path_factory.mktemp("demo")
    ir.save(reader(), path / "reader.onnx")
    rng = np.random.default_rng(0)
    samples = {
        "image": rng.uniform(-1, 1, (40, 3, 12, 10)).astype(np.float32),
        "input_ids": rng.integers(0, len(PIECES), (40, 8)),
        "attention_mask": np.ones((40, 8), np.int64),
        "gain": rng.uniform(1, 2, (40, 1)).astype(np.float32),
    }
    np.savez(path / "inputs.npz", **samples)  # type: ignore[arg-type]
    (path / "labels.txt").write_text("one\ntwo\nthree\nfour <b>\n")
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    words = ("--demo-labels", "labels.txt", "--demo-vocabulary", "vocab.txt")
    done = prunec(
        "compile", "reader.onnx", *TARGET, *FAST, "--calib", "inputs.npz", "--demo", *words, "-o", "out", cwd=path
    )
    assert done.code == 0, done.err
    return path


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    """The page, open and ready."""
    if chromium() is None:
        pytest.skip("needs Chromium")
    with serving(folder / "out" / "wasm") as address, Browser() as own:
        own.open(f"{address}/demo/?seconds=0.2")
        own.wait_for(f'{PAGE}.then(({{ state }}) => state.status === "ready" || state.status === "failed")')
        yield own


def state(browser: Browser, name: str) -> Any:
    """A field of the page's state; arrays as lists."""
    spread = "(_, v) => ArrayBuffer.isView(v) ? Array.from(v, Number) : v"
    return json.loads(browser.evaluate(f"{PAGE}.then(({{ state }}) => JSON.stringify(state.{name}, {spread}))"))


def press(browser: Browser, button: str) -> None:
    browser.evaluate(f'document.getElementById("{button}").click()')
    browser.wait_for(f'{PAGE}.then(({{ state }}) => state.status !== "busy")')


def wanted(folder: Path, inputs: dict[str, list[float]], model: str = "out/model.onnx") -> np.ndarray:
    """What ONNX Runtime answers."""
    shapes = {"image": (1, 3, 12, 10), "input_ids": (1, 8), "attention_mask": (1, 8), "gain": (1, 1)}
    types = {name: np.int64 if name in ("input_ids", "attention_mask") else np.float32 for name in shapes}
    feeds = {name: np.array(inputs[name], types[name]).reshape(shape) for name, shape in shapes.items()}
    from prunec.backends.onnx.session import make_session, run

    (found,) = run(make_session(folder / model), feeds).values()
    return found


def equal(found: dict[str, list[float]], reference: np.ndarray) -> bool:
    (values,) = found.values()
    return bool(np.abs(np.array(values) - reference.ravel()).max() <= 1e-5 * np.abs(reference).max())


def test_the_page_runs_both_models(folder: Path, browser: Browser) -> None:
    """It starts with the sample: numbers as ONNX Runtime's, names of classes, nothing that the policy forbids."""
    inputs = state(browser, "inputs")
    assert state(browser, "error") is None and state(browser, "status") == "ready"
    assert equal(state(browser, "outputs"), wanted(folder, inputs))
    assert equal(state(browser, "dense"), wanted(folder, inputs, "reader.onnx"))
    assert not equal(state(browser, "dense"), wanted(folder, inputs))
    best = ["one", "two", "three", "four <b>"][int(wanted(folder, inputs).argmax())]
    assert browser.evaluate('document.querySelector("#results li span").textContent') == best
    assert "ONNX Runtime's answer differs by" in browser.evaluate('document.getElementById("differences").textContent')
    assert browser.evaluate("crossOriginIsolated") and browser.complaints == []


def test_a_picture_and_a_text(folder: Path, browser: Browser, tmp_path: Path) -> None:
    """A file that is chosen and a text that is typed become inputs, whose answer is ONNX Runtime's."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    (tmp_path / "picture.png").write_bytes(png(pixels))
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "picture.png")])
    text = "A small CAFÉ networks, 日本 xyz ran"
    browser.wait_for('document.querySelector("textarea").placeholder !== ""')
    type_into = f"(area => {{ area.value = {json.dumps(text)}; area.oninput(); }})"
    browser.evaluate(f'{type_into}(document.querySelector("textarea"))')
    wide = np.moveaxis(pixels, -1, 0).ravel() / 127.5 - 1
    browser.evaluate("new Promise((done) => setTimeout(done, 300))")  # the picture is decoded
    press(browser, "run")
    inputs = state(browser, "inputs")
    assert np.abs(np.array(inputs["image"]) - wide).max() < 1e-6
    encoded = WordPiece({piece: number for number, piece in enumerate(PIECES)}).encode(text, 8)
    assert inputs["input_ids"] == encoded.input_ids[0].tolist()
    assert inputs["attention_mask"] == encoded.attention_mask[0].tolist()
    assert equal(state(browser, "outputs"), wanted(folder, inputs))


def test_bad_numbers_are_said_and_the_page_goes_on(browser: Browser) -> None:
    area = 'document.querySelectorAll("textarea")[1]'
    for text, said in (("1 2", "has 1 elements, not 2"), ("much", "holds what is no number")):
        browser.evaluate(f"(area => {{ area.value = '{text}'; area.oninput(); }})({area})")
        press(browser, "run")
        assert said in browser.evaluate('document.getElementById("status").textContent')
        assert state(browser, "status") == "ready"
    press(browser, "sample")
    assert state(browser, "error") is None


def test_latencies_and_what_it_looks_like(browser: Browser) -> None:
    """Times of both, from alternating blocks, drawn; the screenshot is no blank sheet."""
    press(browser, "measure")
    times = state(browser, "times")
    assert len(times["pruned"]) == len(times["dense"]) >= 4 and min(*times["pruned"], *times["dense"]) > 0
    assert "times as fast as dense" in browser.evaluate('document.getElementById("ratio").textContent')
    widths = browser.evaluate('[...document.querySelectorAll("#bars .bar")].map((bar) => bar.offsetWidth)')
    assert len(widths) == 2 and min(widths) > 0
    picture = browser.screenshot()
    colours = np.unique(decoded(picture).astype(np.int32) @ np.array([2**16, 2**8, 1]))
    assert picture.startswith(b"\x89PNG") and len(colours) > 50
    assert browser.complaints == []


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_tokeniser_is_the_zoos(tmp_path: Path) -> None:
    from prunec.backends.wasm import demo

    shutil.copyfile(Path(demo.__file__).parent / "page" / "wordpiece.js", tmp_path / "wordpiece.mjs")
    texts = ["A small network ran", "", "net  “works”\n", "Cafés, a,日本", "smallnetworks a a a a a a a"]
    script = f"""
        import {{ WordPiece }} from {json.dumps((tmp_path / "wordpiece.mjs").as_uri())};
        const own = new WordPiece({json.dumps(PIECES)});
        console.log(JSON.stringify({json.dumps(texts)}.map((text) => own.encode(text, 8))));
    """
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    python = WordPiece({piece: number for number, piece in enumerate(PIECES)})
    for text, found in zip(texts, json.loads(done.stdout), strict=True):
        encoded = python.encode(text, 8)
        assert found == {"ids": encoded.input_ids[0].tolist(), "tokens": int(encoded.attention_mask.sum())}


def test_scales_of_pictures() -> None:
    """The usual ones where the data fills them, else its own extremes."""
    deviations = np.array([0.485, 0.456, 0.406]) / np.array([0.229, 0.224, 0.225])
    for low, high, name in (
        ([0.0], [255.0], "0 to 255"), ([0.0, 0.01, 0.0], [1.0, 0.99, 1.0], "0 to 1"), ([-1.0], [0.98], "−1 to 1"),
        (-deviations, [2.2489, 2.4286, 2.64], "ImageNet's mean and deviation"),
        ([-0.81], [2.02], "extremes of the data"),
    ):  # fmt: skip
        first, *others = _scales(np.asarray(low), np.asarray(high))
        assert first["name"] == name and len({own["name"] for own in (first, *others)}) == len(others) + 1


def test_what_is_in_the_folder(folder: Path) -> None:
    """All of it hashed, none of it in the npm package; `verify` knows it."""
    files = json.loads((folder / "out" / "manifest.json").read_text())["files"]
    assert {"wasm/demo/index.html", "wasm/demo/sample.bin", "wasm/demo/dense/model.wasm"} <= files.keys()
    package = json.loads((folder / "out" / "wasm" / "package.json").read_text())
    assert not any(name.startswith("demo") for name in package["files"])
    assert "wasm/demo/ is a page" in (folder / "out" / "README.txt").read_text()
    assert public.load(folder / "out").default_runtime == "onnxruntime"
    text = "".join(path.read_text() for path in (folder / "out" / "wasm" / "demo").glob("*.[hcj]*") if path.is_file())
    assert "http://" not in text and "https://" not in text and "eval(" not in text


def test_refusals(folder: Path, tmp_path: Path) -> None:
    command = ("compile", folder / "reader.onnx", *TARGET, *FAST)
    (tmp_path / "few.txt").write_text("one\n")
    (tmp_path / "bad.json").write_text("{}")
    for code, *options in (
        ("PC440", "--demo-labels", "few.txt"), ("PC470", "--demo", "--demo-labels", "none.txt"),
        ("PC470", "--demo", "--demo-vocabulary", "few.txt"), ("PC470", "--demo", "--demo-vocabulary", "bad.json"),
    ):  # fmt: skip
        refuses(prunec(*command, *options, cwd=tmp_path), code)
    ir.save(residual([1, 3, 9, 7], 16), tmp_path / "picture.onnx")
    words = ("--demo", "--demo-labels", "few.txt", "--demo-vocabulary", folder / "vocab.txt")
    for model, said in (
        (folder / "reader.onnx", "1 labels, and the outputs have 4 elements"), ("picture.onnx", "a vocabulary is for"),
    ):  # fmt: skip
        done = prunec("compile", model, *TARGET, *FAST, *words, cwd=tmp_path)
        refuses(done, "PC470")
        assert said in done.err and "judging" not in done.err
    for target, budget in (("onnx", "--flops"), ("cpu", "--sparsity")):
        command = ("compile", folder / "reader.onnx", "--target", target, budget, "0.5", "--demo")
        refuses(prunec(*command, cwd=tmp_path), "PC440")


def png(pixels: np.ndarray) -> bytes:
    """[h, w, 3] bytes as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def decoded(data: bytes) -> np.ndarray:
    """The pixels of a PNG file."""
    pillow = pytest.importorskip("PIL.Image", reason="needs the [zoo] extra")
    import io

    return np.asarray(pillow.open(io.BytesIO(data)).convert("RGB"))
