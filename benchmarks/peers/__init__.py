"""prunec beside other tools: each in an environment of its own, on the same models, data and metric.

`__main__.py` is the command. In prunec's process: `catalogue` (who runs), `jobs` (hand over, run, take back),
`ours`, `score`. In a peer's process, which has no prunec: `runner` (the protocol), `onnx_module`, `run_*`.
"""
