"""Modules and onnxruntime-web in the engines that `benchmarks.wasm_models` times them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.chromium import Browser, BrowserError, chromium
from benchmarks.environments import NoEnvironment
from benchmarks.wasm_hosts import HOSTS, npm_folder
from prunec.measure.contender import TimesItself, make_runner
from tests.graph.builder import Builder

needs_chromium = pytest.mark.skipif(chromium() is None, reason="needs Chromium")


@needs_chromium
@pytest.mark.slow
def test_a_page_that_throws_and_a_page_that_is_not_there() -> None:
    with Browser() as browser:
        assert browser.version().startswith("Chrome/") and browser.evaluate("Promise.resolve(6 * 7)") == 42
        with pytest.raises(BrowserError, match="the page threw Error: no"):
            browser.evaluate("(() => { throw new Error('no'); })()")
        with pytest.raises(BrowserError, match="did not become true"):
            browser.wait_for("false", timeout_s=0.1)
        with pytest.raises(BrowserError, match="net::ERR"):
            browser.open("http://127.0.0.1:9/")
    with pytest.raises((BrowserError, OSError)):
        browser.evaluate("1")


@needs_chromium
@pytest.mark.slow
def test_a_module_and_onnxruntime_web_in_every_host(tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="needs the [tvm] extra")
    pytest.importorskip("wasmtime", reason="needs the [cross] extra")
    from prunec.backends.cpu.isa import WASM
    from prunec.backends.wasm.building import build
    from prunec.passes.canonicalise import canonicalise

    try:
        npm_folder()
    except (NoEnvironment, OSError) as reason:
        pytest.skip(str(reason))
    b = Builder(0)
    b.output(b.relu(b.conv(b.input("x", [1, 8, 12, 12]), 16)))
    ir.save(b.model(), tmp_path / "model.onnx")
    folder = build(canonicalise(b.model()), WASM, tmp_path, {}, name="model").folder
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 8, 12, 12)).astype(np.float32)}
    for host in HOSTS.values():
        for kind, model in ((host.own, folder), (host.ort, tmp_path / "model.onnx")):
            runner = make_runner(kind)
            runner.load(model, feeds, threads=1)
            runner.run()
            assert runner.versions()
            if isinstance(runner, TimesItself):
                assert runner.time() > 0 and runner.peak_rss_bytes() > 2**20
