"""Maximum and average over windows, channels last; vectors run along the channels, windows are clipped to the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tvm.tirx.script.builder import ir as T

from prunec.backends.cpu.isa import Isa
from prunec.backends.cpu.kernels.base import Access, Argument, Kernel, held_here, load, pieces, span, splat, store


@dataclass(frozen=True)
class Pool(Kernel):
    """Window [kernel] at y·stride − pad, dilated; `size` of the input. `x` and `y`: strides of batch, row, column.

    The average divides by the window's part inside the input, or by the whole window with `counts_border`.
    """

    family: ClassVar[str] = "pool"

    kind: Literal["max", "average"]
    grid: tuple[int, int, int]
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int]
    dilations: tuple[int, int]
    channels: int
    x: Access
    y: Access
    counts_border: bool = False

    def arguments(self) -> tuple[Argument, ...]:
        return (Argument("x", self.x.dtype, self.x.size), Argument("y", self.y.dtype, self.y.size))

    def emit(self, isa: Isa, x: Any, y: Any) -> None:
        batch, height, width = self.grid
        lanes = isa.lanes(self.x.dtype)
        whole, tail = divmod(self.channels, lanes)
        with T.parallel(0, batch * height) as job:
            n, line = job // height, job % height
            with T.serial(0, width) as px:
                rows, columns = self._window(line, 0), self._window(px, 1)

                def strip(channel: Any, wide: int) -> None:
                    sums = held_here(wide, self.x.dtype)
                    store(sums, 0, splat(-3.4028234663852886e38 if self.kind == "max" else 0.0, wide), wide)
                    with span(rows[1], rows[2]) as r, span(columns[1], columns[2]) as q:
                        sy, sx = rows[0] + r * self.dilations[0], columns[0] + q * self.dilations[1]
                        value = load(x, self.x.at(n, sy, sx) + channel, wide)
                        held = load(sums, 0, wide)
                        store(sums, 0, T.max(held, value) if self.kind == "max" else held + value, wide)
                    result = load(sums, 0, wide)
                    if self.kind == "average":
                        count = (
                            self.kernel[0] * self.kernel[1]
                            if self.counts_border
                            else (rows[2] - rows[1]) * (columns[2] - columns[1])
                        )
                        divisor = T.Cast("float32", count) if not isinstance(count, int) else T.float32(count)
                        result = result / (divisor if wide == 1 else T.Broadcast(divisor, wide))
                    store(y, self.y.at(n, line, px) + channel, result, wide)

                if whole:
                    with T.serial(0, whole) as c:
                        strip(c * lanes, lanes)
                for start, wide in pieces(tail, lanes) if tail else ():
                    strip(whole * lanes + start, wide)

    def _window(self, position: Any, axis: int) -> tuple[Any, Any, Any]:
        """Where it starts in the input, and the first and past-the-last tap that lies inside."""
        start = T.bind(position * self.strides[axis] - self.pads[axis])
        step, taps, length = self.dilations[axis], self.kernel[axis], self.size[axis]
        first = T.bind(T.max((step - 1 - start) // step, 0))
        last = T.bind(T.min((length - start + step - 1) // step, taps))
        return start, first, last
