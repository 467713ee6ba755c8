"""Commands behind every figure that the documentation quotes: `python -m benchmarks.NAME --help`."""
