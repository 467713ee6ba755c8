"""Timing of contenders, interleaved against the dense model.

`prunec.measure.run.measure` is the entry: every contender runs in its own pinned worker process
(`prunec.measure.worker`), blocks are interleaved A B B A, and a speed-up is the median of paired ratios with a
bootstrap interval (`prunec.measure.ratio`). A new way to run a model is one class and one row in
`prunec.measure.contender.RUNNERS`.
"""
