"""The arena: buffers that are never needed together share memory (greedy by size, as in TensorFlow Lite's planner)."""

from __future__ import annotations

from collections.abc import Sequence

from prunec.backends.cpu.kernels.base import Kernel
from prunec.backends.cpu.lower.program import Buffer, Step

ALIGNMENT = 64


def plan_arena(steps: Sequence[Step]) -> tuple[dict[Buffer, int], int]:
    """Byte offset of every arena buffer, and the size of the arena.

    A buffer lives from the first to the last step that names it; the largest one is placed first, each at the lowest
    offset where it meets no other that lives at the same time. What a kernel adds to may become its result.
    """
    lives: dict[Buffer, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for buffer in step.buffers:
            if buffer.place == "arena":
                first, _ = lives.get(buffer, (number, number))
                lives[buffer] = (first, number)
    kept = _overwritten(steps, lives)
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
    for written, buffer in kept.items():
        offsets[written] = offsets[buffer]
    return offsets, max((offsets[b] + _padded(b) for b in offsets), default=0)


def _overwritten(steps: Sequence[Step], lives: dict[Buffer, tuple[int, int]]) -> dict[Buffer, Buffer]:
    """Written buffers that take the place of one that dies in the same step: theirs, which then lives as long.

    They are taken out of `lives`. Saves memory, and reading from far away what is about to be overwritten.
    """
    place: dict[Buffer, Buffer] = {}
    for number, step in enumerate(steps):
        *read, written = step.buffers
        if not isinstance(step.call, Kernel) or written not in lives or lives[written][0] != number:
            continue
        for index in step.call.overwritable():
            held = place.get(read[index], read[index])
            if held in lives and lives[held][1] == number and read.count(read[index]) == 1:
                lives[held] = (lives[held][0], lives.pop(written)[1])
                place[written] = held
                break
    return place


def _padded(buffer: Buffer) -> int:
    return -(-buffer.bytes // ALIGNMENT) * ALIGNMENT
