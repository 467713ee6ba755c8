"""The arena: buffers that are never needed together share memory (greedy by size, as in TensorFlow Lite's planner)."""

from __future__ import annotations

from collections.abc import Sequence

from prunec.backends.cpu.lower.program import Buffer, Step

ALIGNMENT = 64


def plan_arena(steps: Sequence[Step]) -> tuple[dict[Buffer, int], int]:
    """Byte offset of every arena buffer, and the size of the arena.

    A buffer lives from the first to the last step that names it; the largest one is placed first, each at the lowest
    offset where it meets no other that lives at the same time.
    """
    lives: dict[Buffer, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for buffer in step.buffers:
            if buffer.place == "arena":
                first, _ = lives.get(buffer, (number, number))
                lives[buffer] = (first, number)
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(lives, key=lambda b: (-b.bytes, lives[b])):
        first, last = lives[buffer]
        taken = sorted(
            (start, start + _padded(other))
            for other, start in offsets.items()
            if lives[other][0] <= last and first <= lives[other][1]
        )
        at = 0
        for start, end in taken:
            if start - at >= _padded(buffer):
                break
            at = max(at, end)
        offsets[buffer] = at
    return offsets, max((offsets[b] + _padded(b) for b in offsets), default=0)


def _padded(buffer: Buffer) -> int:
    return -(-buffer.bytes // ALIGNMENT) * ALIGNMENT
