"""Some 250 photographs of animals, tools and monuments out of the resource files of Debian's GCompris.

A Qt resource file keeps what is compressed already as it is, so its WebP pictures can be found by their headers.
They are scaled down once and kept in the cache.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunec.models.cache import staged, zoo_cache
from prunec.models.fetch import fetch
from prunec.models.packages import GCOMPRIS
from prunec.models.text_lines import need_pillow

SHORT_SIDE = 288
SMALLEST = 200  # smaller ones are icons
HEADER = 8  # "RIFF" and the length of what follows
Picture = npt.NDArray[np.uint8]  # [height, width, 3], RGB


def gcompris_photographs(*, cache: Path | None = None) -> Sequence[Picture]:
    """Pictures with a short side of at most `SHORT_SIDE`, mapped from the cache."""
    folder = zoo_cache(cache) / f"photographs-{GCOMPRIS.folder}-{SHORT_SIDE}"
    if not folder.is_dir():
        source = fetch(GCOMPRIS, cache=cache)
        with staged(folder) as stage:
            pictures = (picture for member in GCOMPRIS.members for picture in _pictures(source / member.path))
            for number, picture in enumerate(pictures):
                np.save(stage / f"{number:04d}.npy", picture)
    return [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]


def webp_files(resource: bytes) -> Iterator[bytes]:
    """Every WebP file in the bytes of a resource file, in order."""
    start = resource.find(b"RIFF")
    while start >= 0:
        length = HEADER + struct.unpack_from("<I", resource, start + 4)[0]
        is_webp = resource[start + HEADER : start + HEADER + 4] == b"WEBP"
        if is_webp:
            yield resource[start : start + length]
        start = resource.find(b"RIFF", start + (length if is_webp else HEADER))


def _pictures(path: Path) -> Iterator[Picture]:
    need_pillow()
    from PIL import Image

    for data in webp_files(path.read_bytes()):
        image = Image.open(io.BytesIO(data))
        if min(image.size) < SMALLEST or image.mode != "RGB":
            continue
        scale = min(1.0, SHORT_SIDE / min(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        yield np.asarray(image.resize(size, Image.Resampling.LANCZOS))
