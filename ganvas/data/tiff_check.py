"""Checks of the structure of a TIFF before a decoder reads it, with nothing but ``struct``.

Decoders trust the file: they follow chains of directories that may loop, open other files that a description names, use
either of two contradicting tags, and allocate the size that a compressed tile claims. This module reads the directories
once and refuses such files; those that pass are safe for tifffile and Pillow.

Reference: TIFF 6.0, Sec. 2; BigTIFF (tag sizes of 64 bits); for coded sizes ITU-T T.81, Sec. B.2.2 (JPEG), ITU-T T.800,
Sec. A.5.1 (JPEG 2000), RFC 9649 (WebP), and Lerc2's header.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_DIRECTORIES = 4096  # our choice; each channel may be a page
MAX_TAGS = 4096  # in a directory; tifffile's limit
MAX_NUMBERS = 2**16  # in one tag
FREE_SEGMENT = 2**26  # bytes up to which a tile may be larger than its image; our choice
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # struct's codes of unsigned types

SUBFILE_TYPE, OLD_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
SAMPLES, ROWS_PER_STRIP, PLANAR, TILE_WIDTH, TILE_HEIGHT, SUB_DIRECTORIES = 277, 278, 284, 322, 323, 330
DESCRIPTION, PREDICTOR, DEPTH, TILE_DEPTH = 270, 317, 32997, 32998
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
SCALARS = {WIDTH: "ImageWidth", HEIGHT: "ImageLength", COMPRESSION: "Compression", PHOTOMETRIC: "Photometric"}
SCALARS |= {SAMPLES: "SamplesPerPixel", PLANAR: "PlanarConfiguration", TILE_WIDTH: "TileWidth"}
SCALARS |= {TILE_HEIGHT: "TileLength", DEPTH: "ImageDepth", TILE_DEPTH: "TileDepth", PREDICTOR: "Predictor"}
REDUCED, MASK = 1, 4  # bits of NewSubfileType

OLD_JPEG, JPEG, WEBP, JPEG_2000, LERC = 6, {7}, {50001, 34927}, {33003, 33005, 34712}, {34887}
# None, CCITT, LZW, old JPEG, deflate, PackBits, LZMA, Zstandard: their decoders return no more than requested.
BOUNDED = {1, 2, 3, 4, 5, 6, 8, 32946, 32773, 34925, 50000, 34926}
COMPRESSIONS = BOUNDED | JPEG | WEBP | JPEG_2000 | LERC
SAMPLE_BITS = {1, 2, 4, 8, 12, 16, 24, 32, 64}  # 12 only for gray, which Pillow reads, 24 only for floats


@dataclass(frozen=True)
class Entry:
    """A tag: its type, number of values, and offset of the values."""

    type: int
    count: int
    offset: int


class Directory:
    """One directory of a TIFF, which describes one image."""

    def __init__(self, file: BinaryIO, order: str, entries: dict[int, Entry]) -> None:
        self._file, self._order, self.entries = file, order, entries

    def numbers(self, code: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the values of a tag of unsigned integers, or ``default`` if it is missing.

        Raises:
            ValueError: The tag has another type.
        """
        entry = self.entries.get(code)
        if entry is None:
            return default
        if entry.type not in INTEGERS:
            raise ValueError(f"tag {SCALARS.get(code, code)} has the type {entry.type}, which is not an integer")
        if entry.count > MAX_NUMBERS:
            raise ValueError(f"tag {SCALARS.get(code, code)} has {entry.count} values")
        self._file.seek(entry.offset)
        content = self._file.read(entry.count * SIZES[entry.type])
        return struct.unpack(f"{self._order}{entry.count}{INTEGERS[entry.type]}", content)

    def number(self, code: int, default: int) -> int:
        """Return the value of a tag with one value, or ``default`` if it is missing.

        Raises:
            ValueError: The tag has another type, or not one value.
        """
        values = self.numbers(code, (default,))
        if len(values) != 1:
            raise ValueError(f"tag {SCALARS.get(code, code)} has {len(values)} values instead of one")
        return values[0]

    @property
    def is_image(self) -> bool:
        """Whether it is an independent image, not a thumbnail or a mask of another."""
        old = self.numbers(OLD_SUBFILE_TYPE, (0,))[:1] == (2,)
        return not old and not self.numbers(SUBFILE_TYPE, (0,))[0] & (REDUCED | MASK)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.number(WIDTH, 0), self.number(HEIGHT, 0)


def is_tiff(head: bytes) -> bool:
    """Return whether a file starts as a TIFF does."""
    return head[:4] in SIGNATURES


def check_tiff(file: BinaryIO) -> list[Directory]:
    """Check all directories of a TIFF; return those of the main chain that are independent images.

    Raises:
        ValueError: The chain of directories loops or is too long, a tag repeats, a tag's values are outside the file,
            the compression is not supported, or a tile or strip is far larger than its image.
    """
    chain = list(_main_chain(file))
    if not chain:
        raise ValueError("it holds no image")
    images = [directory for directory in chain if directory.is_image] or chain[:1]
    if images[0] is not chain[0]:
        raise ValueError("its first page is a thumbnail or a mask of another one; save that one alone")
    for directory in images:
        _check_layout(directory)
    return images


def _main_chain(file: BinaryIO) -> Iterator[Directory]:
    """Yield the main chain; sub-directories are checked too, since decoders read them."""
    end = file.seek(0, 2)
    file.seek(0)
    head = file.read(8)
    order = "<" if head[:2] == b"II" else ">"
    is_big = head[2:4] in (b"+\0", b"\0+")
    following = struct.unpack(f"{order}Q", file.read(8))[0] if is_big else struct.unpack_from(f"{order}I", head, 4)[0]
    seen: set[int] = set()

    def read_at(offset: int) -> tuple[dict[int, Entry], int]:
        if offset in seen:
            raise ValueError("its chain of directories forms a loop")
        seen.add(offset)
        if len(seen) > MAX_DIRECTORIES:
            raise ValueError(f"it has more than {MAX_DIRECTORIES} directories")
        return _read_directory(file, order, is_big, offset, end)

    while following:
        entries, following = read_at(following)
        directory = Directory(file, order, entries)
        yield directory
        for offset in directory.numbers(SUB_DIRECTORIES):
            if offset:
                read_at(offset)


def _read_directory(file: BinaryIO, order: str, is_big: bool, offset: int, end: int) -> tuple[dict[int, Entry], int]:
    """Return the tags of a directory and the offset of the next one (0 after the last)."""
    counting, entry_format, inline = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    file.seek(offset)
    (count,) = struct.unpack(f"{order}{counting}", _exactly(file, struct.calcsize(f"={counting}")))
    if count > MAX_TAGS:
        raise ValueError(f"a directory has {count} tags; at most {MAX_TAGS} are read")
    head = struct.calcsize(f"={entry_format}")
    start, step = offset + struct.calcsize(f"={counting}"), head + inline
    content = _exactly(file, count * step)
    entries: dict[int, Entry] = {}
    for i in range(count):
        code, type_, value_count = struct.unpack_from(f"{order}{entry_format}", content, i * step)
        if type_ not in SIZES:  # readers must ignore unknown types
            continue
        if code in entries and code != DESCRIPTION:  # ImageJ and tifffile write two descriptions
            raise ValueError(f"tag {code} is there twice in one directory")
        size = value_count * SIZES[type_]
        place = start + i * step + head
        if size > inline:
            (place,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", content, i * step + head)
        if place + size > end:
            raise ValueError(f"the values of tag {code} lie beyond the end of the file, which may be cut off")
        entries[code] = Entry(type_, value_count, place)
    following = file.read(inline)
    if len(following) < inline:  # some writers leave it out after the last directory
        return entries, 0
    return entries, int.from_bytes(following, "little" if order == "<" else "big")


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise ValueError("a directory lies beyond the end of the file, which may be cut off")
    return content


def _check_layout(directory: Directory) -> None:
    """Check that compression and depth are supported, and that no tile is far larger than its image."""
    scalars = {code: directory.number(code, 0) for code in SCALARS if code in directory.entries}
    width, height = directory.size
    if not width or not height:
        raise ValueError("a directory does not say how large its image is")
    compression = scalars.get(COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        raise ValueError(f"the TIFF compression {compression} is not supported; deflate and LZW are, and JPEG")
    bits = max(directory.numbers(BITS, (1,)), default=1)
    if bits not in SAMPLE_BITS or (bits == 12 and scalars.get(SAMPLES, 1) > 1):
        raise ValueError(f"it has {bits} bits a sample, which is not supported; save it with 8 or 16")
    if segment_bytes(directory, bits) > max(FREE_SEGMENT, _bytes(width * height, scalars.get(DEPTH, 1), scalars, bits)):
        raise ValueError("a tile or strip claims to be far larger than the whole image")
    if compression != OLD_JPEG:  # whose data may be in one piece
        _require_segments(directory)


def _require_segments(directory: Directory) -> None:
    """Check that the image has all tiles or strips; decoders fill missing ones with zeros."""
    width, height = directory.size
    if TILE_WIDTH in directory.entries:
        across = -(-width // directory.number(TILE_WIDTH, 0))
        down = -(-height // directory.number(TILE_HEIGHT, 0))
        needed = across * down * -(-directory.number(DEPTH, 1) // directory.number(TILE_DEPTH, 1))
        kind, offsets = "tiles", directory.entries.get(TILE_OFFSETS)
    else:
        needed = -(-height // min(directory.numbers(ROWS_PER_STRIP, (height,))[0], height))
        kind, offsets = "strips", directory.entries.get(STRIP_OFFSETS)
    if directory.number(PLANAR, 1) != 1:
        needed *= directory.number(SAMPLES, 1)
    found = 0 if offsets is None else offsets.count
    if found < needed:
        raise ValueError(f"it has {found} of the {needed} {kind} that its size requires")


def segment_bytes(directory: Directory, bits: int) -> int:
    """Return the bytes of a decoded tile or strip."""
    width, height = directory.size
    scalars = {code: directory.number(code, 1) for code in (SAMPLES, PLANAR, TILE_DEPTH)}
    if TILE_WIDTH in directory.entries or TILE_HEIGHT in directory.entries:
        area = directory.number(TILE_WIDTH, 0) * directory.number(TILE_HEIGHT, 0)
        if not area:
            raise ValueError("its tiles have no size")
        return _bytes(area, scalars[TILE_DEPTH], scalars, bits)
    rows = min(directory.numbers(ROWS_PER_STRIP, (height,))[0], height)
    if not rows:
        raise ValueError("its strips have no rows")
    return _bytes(width * rows, 1, scalars, bits)


def _bytes(area: int, depth: int, scalars: dict[int, int], bits: int) -> int:
    samples = scalars.get(SAMPLES, 1) if scalars.get(PLANAR, 1) == 1 else 1
    return area * depth * samples * bits // 8


def check_segment(content: bytes, compression: int, width: int, height: int, samples: int) -> None:
    """Check that the size in a compressed tile or strip does not exceed the size that the TIFF declares.

    Args:
        content: Its compressed bytes.
        compression: The Compression tag.
        width: Width of a tile, or of the image for strips.
        height: Height of a tile or strip.
        samples: Per pixel.

    Raises:
        ValueError: It would decode to more, or its size is unknown.
    """
    if compression in BOUNDED:
        return
    try:
        size = _coded_size(content, compression)
    except (struct.error, IndexError):
        raise ValueError("a compressed tile or strip ends in its header") from None
    if any(found > allowed for found, allowed in zip(size, (width, height, samples), strict=True)):
        found = "x".join(map(str, size))
        raise ValueError(f"a compressed tile or strip holds {found} values where {width}x{height}x{samples} belong")


def _coded_size(content: bytes, compression: int) -> tuple[int, int, int]:
    """Return width, height and samples from the header of JPEG, WebP, JPEG 2000 or LERC."""
    if compression in JPEG:
        return _jpeg_size(content)
    if compression in WEBP:
        return *_webp_size(content), 1
    if compression in JPEG_2000 and content[:4] == b"\xff\x4f\xff\x51":
        right, bottom, left, top = struct.unpack_from(">IIII", content, 8)
        return right - left, bottom - top, struct.unpack_from(">H", content, 40)[0]
    if compression in LERC and content[:6] == b"Lerc2 ":
        version, _, height, width = struct.unpack_from("<iIii", content, 6)
        samples, length = (1, 30) if version == 3 else (struct.unpack_from("<i", content, 22)[0], 34)
        if version >= 3 and struct.unpack_from("<i", content, length)[0] == len(content):
            return width, height, samples
    raise ValueError("a compressed tile or strip is of a kind that is not supported")


def _jpeg_size(content: bytes) -> tuple[int, int, int]:
    """Return width, height and samples of a JPEG, found as libjpeg does: bytes that are not markers are skipped.

    Raises:
        ValueError: There is no frame header.
        IndexError: It ends before that.
        struct.error: It ends in it.
    """
    at = 2
    while True:
        at = content.find(b"\xff", at) + 1 or len(content)
        while content[at] == 0xFF:
            at += 1
        marker, at = content[at], at + 1
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no marker, or one without content
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, samples = struct.unpack_from(">HHB", content, at + 3)
            return width, height, samples
        if marker in (0xD9, 0xDA):
            raise ValueError("a JPEG has no frame header")
        at += struct.unpack_from(">H", content, at)[0]


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[place : place + 3], "little") for place in (24, 27))
        return width + 1, height + 1
    raise ValueError("a WebP tile or strip is damaged")
