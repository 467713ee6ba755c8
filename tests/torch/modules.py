"""Small modules of many kinds, for the tests that prune them and compare their groups with those of their files."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
nn, F = torch.nn, torch.nn.functional


def image() -> Any:
    return torch.randn(2, 3, 8, 8)


def tokens() -> Any:
    return torch.randn(2, 5, 32)


def ids() -> Any:
    return torch.randint(0, 40, (2, 6))


class Residual(nn.Module):
    """Batch norms with statistics, a shortcut, a depthwise layer, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(32), nn.BatchNorm2d(32)
        self.body = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.point = nn.Conv2d(32, 24, 1)
        self.head = nn.Linear(24, 10)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.1)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.norm1(self.stem(x)))
        x = x + torch.relu(self.norm2(self.body(x)))
        return self.head(torch.relu(self.point(self.depthwise(x))).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.down, self.up = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Any) -> Any:
        x = F.silu(self.conv(x))
        return self.last(x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))))


class Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=2)
        self.last = nn.Conv2d(16, 8, 1)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.first(x))
        n, channels, height, width = x.shape
        x = x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)
        return self.last(F.relu(self.second(x)))


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def block(cin: int, wide: int) -> Any:
            layers = [nn.Conv2d(cin, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
            layers += [nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
            return nn.Sequential(*layers, nn.Conv2d(wide, cin, 1, bias=False), nn.BatchNorm2d(cin))

        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), block(8, 24), block(8, 32)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x + self.a(x)
        return self.head((x + self.b(x)).mean((2, 3)))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8 + 8 * i, 8, 3, padding=1) for i in range(3))
        self.stem, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return self.last(x)


class Pyramid(nn.Module):
    """A feature pyramid: strided layers, lateral 1×1, upsampling, additions, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.l1, self.l2 = nn.Conv2d(16, 12, 1), nn.Conv2d(24, 12, 1)
        self.o1, self.o2 = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.c1(x))
        top = self.l2(F.relu(self.c2(a)))
        side = self.l1(a) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return self.o1(side), self.o2(top)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.mid = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(16, 12, 2, 2), nn.Conv2d(24, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.down(x))
        b = F.relu(self.norm(self.up(F.relu(self.mid(F.max_pool2d(a, 2))))))
        return self.last(torch.cat([a, b], 1))


class Recurrent(nn.Module):
    def __init__(self, kind: str = "LSTM", both: bool = False, layers: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 24)
        self.layer = getattr(nn, kind)(24, 16, layers, batch_first=True, bidirectional=both)
        self.out = nn.Linear(32 if both else 16, 5)

    def forward(self, ids: Any) -> Any:
        return self.out(self.layer(self.embed(ids))[0].mean(1))


class SelfAttention(nn.Module):
    """Separate projections, heads by name, a feed-forward layer."""

    def __init__(self, width: int = 32, heads: int = 4, shared: int | None = None) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.num_kv_heads = shared or heads
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = (nn.Linear(width, self.num_kv_heads * self.head_dim) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x: Any) -> Any:
        n, length, _ = x.shape
        q = self.q(x).view(n, length, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = (y(x).view(n, length, self.num_kv_heads, self.head_dim).transpose(1, 2) for y in (self.k, self.v))
        if self.num_kv_heads != self.num_heads:
            k, v = (y.repeat_interleave(self.num_heads // self.num_kv_heads, 1) for y in (k, v))
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.head_dim), -1)
        y = (scores @ v).transpose(1, 2).reshape(n, length, self.num_heads * self.head_dim)
        x = self.norm(x + self.out(y))
        return x + self.down(F.gelu(self.up(x)))


class Packed(nn.Module):
    """One projection for queries, keys and values, as vision transformers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Any) -> Any:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.num_heads, 8).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, length, -1))


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(48, 32, bias=False)

    def forward(self, x: Any) -> Any:
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class Vision(nn.Module):
    """Patches, a class token, positions, one pre-norm block, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 5, 32))
        self.norm, self.attention = nn.LayerNorm(32), Packed()
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        x = x + self.attention(self.norm(x))
        return self.head((x + self.down(F.gelu(self.up(x))))[:, 0])


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.along, self.back = nn.Linear(5, 20), nn.Linear(20, 5)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x: Any) -> Any:
        x = x + self.back(F.gelu(self.along(self.norm(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.down(F.gelu(self.up(x)))


class Tied(nn.Module):
    """An embedding whose table is the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(40, 32), nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        return self.head(x + self.down(F.relu(self.up(x))))


class EinsumHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(4, 32, 8) / 6) for _ in range(3))
        self.out = nn.Parameter(torch.randn(4, 8, 32) / 6)

    def forward(self, x: Any) -> Any:
        q, k, v = (torch.einsum("btc,hcd->bhtd", x, w) for w in (self.q, self.k, self.v))
        scores = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(8), -1)
        return torch.einsum("bthd,hdo->bto", torch.einsum("bhts,bhsd->bthd", scores, v), self.out)


class HardCoded(nn.Module):
    """Its forward writes a width down."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 3)

    def forward(self, x: Any) -> Any:
        return self.second(F.relu(self.first(x)).reshape(2, 16, 6, 6))


def norms() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 12, 3), nn.InstanceNorm2d(12, affine=True),
        nn.PReLU(12), nn.Conv2d(12, 4, 1),
    )  # fmt: skip


def conv1d() -> Any:
    return nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16), nn.LeakyReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 8, 2))


def mlp() -> Any:
    return nn.Sequential(
        nn.Linear(32, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 24), nn.ELU(), nn.Linear(24, 4)
    )


def pixel_shuffle() -> Any:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 3, 1))


def flattened() -> Any:
    first = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*first, nn.Linear(144, 24), nn.ReLU(), nn.Linear(24, 4))


def grouped() -> Any:
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=4), nn.ReLU(), nn.Conv2d(32, 4, 1))


def depthwise() -> Any:
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 3, groups=16), nn.ReLU(), nn.Conv2d(32, 4, 1))


def transposed() -> Any:
    middle = [nn.ConvTranspose2d(16, 12, 3, 2, groups=2), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(3, 16, 3), *middle, nn.Conv2d(12, 4, 1))


Example = tuple[Callable[[], Any], Callable[[], Any]]
MODULES: dict[str, Example] = {
    "conv1d": (conv1d, lambda: torch.randn(2, 3, 16)),
    "dense": (Dense, image),
    "depthwise": (depthwise, image),
    "einsum": (EinsumHeads, tokens),
    "encoder_layer": (lambda: nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), tokens),
    "flattened": (flattened, image),
    "gated": (Gated, tokens),
    "gru": (lambda: Recurrent("GRU"), ids),
    "grouped": (grouped, image),
    "gru_both": (lambda: Recurrent("GRU", both=True), ids),
    "hard_coded": (HardCoded, image),
    "inverted_residual": (InvertedResidual, image),
    "lstm": (Recurrent, ids),
    "lstm_both": (lambda: Recurrent(both=True), ids),
    "lstm_stacked": (lambda: Recurrent(layers=2), ids),
    "mixer": (Mixer, tokens),
    "mlp": (mlp, lambda: torch.randn(3, 32)),
    "norms": (norms, image),
    "packed": (Packed, tokens),
    "pixel_shuffle": (pixel_shuffle, image),
    "pyramid": (Pyramid, image),
    "residual": (Residual, image),
    "rnn": (lambda: Recurrent("RNN"), ids),
    "self_attention": (SelfAttention, tokens),
    "shared_heads": (lambda: SelfAttention(shared=2), tokens),
    "shuffle": (Shuffle, image),
    "squeeze_excite": (SqueezeExcite, image),
    "tied": (Tied, ids),
    "transposed": (transposed, image),
    "unet": (UNet, image),
    "vision": (Vision, image),
}


def make(name: str, seed: int = 0) -> tuple[Any, Any]:
    """A module in evaluation mode and an example input, seeded."""
    torch.manual_seed(seed)
    build, example = MODULES[name]
    return build().eval(), example()
