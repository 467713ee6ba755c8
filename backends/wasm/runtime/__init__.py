"""C sources of the run time inside a .wasm; no Python."""
