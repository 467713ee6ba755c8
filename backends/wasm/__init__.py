"""The target `wasm`: one WebAssembly module with its weights, an ES module around it, and its types.

`artifact` writes the folder, `engine` (wasmtime) and `node` (V8) run it for checks and measurements. Kernels and
lowering are those of `prunec.backends.cpu`.
"""
