"""Mutators for `benchmarks.fuzz`: functions of a random generator, a file and another file of the same format.

Generic ones change any bytes. Structured ones know a format, and keep the lengths and checksums that they do not change
on purpose valid, so that a reader does not stop there.
"""

import gzip
import io
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from PIL import Image

Rng = random.Random
Mutator = Callable[[Rng, bytes, bytes], bytes]
Field = tuple[int, int]  # offset and size

NUMBERS = (0, 1, 2, 3, 4, 6, 7, 8, 16, 32, 255, 256, 4095, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
           2**63 - 1, -1, -512)  # fmt: skip
BOMB_BYTES = 2**28  # decompressed size of a bomb: beyond every limit that a small file should reach
LARGEST = 100_000  # bytes; a file that has grown beyond holds a bomb, and is not parsed again

NAMES = (
    "../outside.jpg", "/tmp/outside.jpg", "a/../../outside.jpg", "C:\\x.jpg", "con.jpg", "x" * 300 + ".jpg", "", ".",
    "a\0b.jpg", "a\udc80.jpg", "\u202egpj.x", "a/" * 400 + "x.jpg", "NEW\nLINE.jpg", "0.a.jpg", "0.b.jpg",
)  # fmt: skip


@cache
def bomb(wbits: int) -> bytes:
    """Compress `BOMB_BYTES` zeros; ``wbits`` as in `zlib.compressobj`: 15 for zlib, 31 for gzip."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, wbits), bytes(2**20)
    return b"".join(packer.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))) + packer.flush()


def integer(rng: Rng, size: int, order: str = "<") -> bytes:
    """Return an interesting integer of ``size`` bytes; ``order`` as in `struct`."""
    value = rng.choice(NUMBERS) if rng.random() < 0.8 else rng.getrandbits(8 * size)
    return (value % 2 ** (8 * size)).to_bytes(size, "little" if order == "<" else "big")


def overwrite(content: bytes, start: int, block: bytes) -> bytes:
    """Replace bytes in place."""
    return content[:start] + block + content[start + len(block) :]


def set_field(rng: Rng, content: bytes, start: int, fields: Sequence[Field], order: str = "<") -> bytes:
    """Write an interesting integer into one of the fields of the record at ``start``."""
    offset, size = rng.choice(fields)
    return overwrite(content, start + offset, integer(rng, size, order))


# --- any bytes -------------------------------------------------------------------------------------------------------


def flip_bits(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Flip up to 16 bits."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 16)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_run(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Fill a run of bytes with 0, 0xff or random values."""
    length = rng.choice((1, 2, 4, 8, 32, 200))
    fill = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return overwrite(content, rng.randrange(len(content)), fill)


def set_integer(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Write an interesting integer over 1 to 8 bytes, mostly near the start, where headers are."""
    size = rng.choice((1, 2, 4, 8))
    end = len(content) if rng.random() < 0.4 else min(len(content), 128)
    return overwrite(content, rng.randrange(max(1, end - size)), integer(rng, size, rng.choice("<>")))


def truncate(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Cut the end off."""
    return content[: rng.randrange(len(content))]


def duplicate(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Repeat a block, once or a hundred times."""
    start = rng.randrange(len(content))
    block = content[start : start + rng.choice((1, 4, 16, 64, 512, 4096))]
    return content[:start] + block * rng.choice((2, 2, 3, 100)) + content[start + len(block) :]


def remove(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Remove a block."""
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 2, 4, 16, 64, 512)) :]


def insert(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Insert random bytes or a block of another file."""
    start, length = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 16, 512))
    from_other = rng.randrange(len(other))
    return content[:start] + rng.choice((rng.randbytes(length), other[from_other:][:length])) + content[start:]


def splice(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Continue with another file of the format, from the same place or any."""
    start = rng.randrange(len(content))
    return content[:start] + other[rng.choice((start, rng.randrange(len(other)))) :]


GENERIC: tuple[Mutator, ...] = (flip_bits, set_run, set_integer, truncate, duplicate, remove, insert, splice)


def generic(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Apply one of the generic mutators."""
    return rng.choice(GENERIC)(rng, content, other)


# --- TIFF and EXIF ---------------------------------------------------------------------------------------------------

OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="24" SizeY="16" {}</Pixels></Image></OME>'
)
TIFF_TEXTS = (
    OME.format('SizeC="3" SizeZ="1" SizeT="1"><TiffData IFD="0" PlaneCount="1"><UUID FileName="../outside.tif">'
               'urn:uuid:1</UUID></TiffData>'),
    OME.format('SizeC="1" SizeZ="100000" SizeT="1"><TiffData IFD="0" PlaneCount="100000000"/>'),
    "ImageJ=1.54f\nimages=100000000\nslices=10000\nframes=10000\nhyperstack=true\n",
    '{"shape": [100000, 100000, 3], "axes": "ZYX"}',
    '{"shape": [16, 24, 3]' + "[" * 5000,
    "x" + " " * 40_000 + "y",
    '<Item name="STATISTICS_' * 4000,
    "<GDALMetadata>" + '<Item name="STATISTICS_X">' * 2000,
    "nan", "-9999" + "0" * 5000, "1e400", "0x10", "\0\0\0", "SCIFIO=7\nimages=9\n", "<OME>" * 5000,
)  # fmt: skip
TIFF_TAGS = (
    254, 255, 256, 257, 258, 259, 262, 263, 266, 269, 270, 273, 274, 277, 278, 279, 282, 283, 284, 292, 296, 297, 305,
    306, 317, 320, 322, 323, 324, 325, 330, 332, 338, 339, 347, 513, 514, 529, 530, 532, 700, 32997, 32998, 33550,
    33628, 33723, 33922, 34264, 34377, 34412, 34665, 34675, 34735, 34853, 42112, 42113, 50838, 50839, 50844, 51123,
)  # fmt: skip
TIFF_VALUES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 24, 32, 64, 3000, 30000, 32773, 32946, 33003, 34712, 34925, 34934, 50000)
TIFF_TYPES = (0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 16, 99)


class Tiff:
    """The structure of a TIFF: offsets of the entries of each directory, and of the links to directories."""

    def __init__(self, content: bytes) -> None:
        self.order = {b"II": "<", b"MM": ">"}[content[:2]]
        big = struct.unpack_from(f"{self.order}H", content, 2)[0] == 43
        # struct's letter and size of an offset, and the sizes of a directory's count and of its entries
        self.number, self.width, self.head, self.entry = ("Q", 8, 8, 20) if big else ("I", 4, 2, 12)
        self.directories: list[list[int]] = []
        self.links = [8 if big else 4]  # the first is in the header
        while len(self.directories) < 16 and self.links[-1] + self.width <= len(content):
            offset = self.read(content, self.links[-1])
            first = offset + self.head
            if not 0 < offset < len(content) - self.head or [first] in [each[:1] for each in self.directories]:
                return
            (count,) = struct.unpack_from(f"{self.order}{'Q' if big else 'H'}", content, offset)
            self.directories.append([first + self.entry * i for i in range(min(count, 100))])
            self.links.append(first + self.entry * count)
        if self.links[-1] + self.width > len(content):
            self.links.pop()

    def read(self, content: bytes | bytearray, at: int) -> int:
        """Read an offset."""
        return int(struct.unpack_from(f"{self.order}{self.number}", content, at)[0])

    def write(self, changed: bytearray, at: int, value: int, form: str | None = None) -> None:
        """Write an integer, by default of the size of an offset."""
        letter = form or self.number
        limit = 2 ** (8 * struct.calcsize(f"={letter}"))
        struct.pack_into(f"{self.order}{letter}", changed, at, value % limit)

    def write_entry(self, changed: bytearray, at: int, tag: int, kind: int, count: int, value: int) -> None:
        """Write an entry with one number of type SHORT (3), LONG (4) or LONG8 (16), or the offset of its values."""
        struct.pack_into(f"{self.order}HH{self.number}", changed, at, tag, kind, count)
        self.write(changed, at + 4 + self.width, value, "H" if kind == 3 else None)

    def choose(self, rng: Rng) -> tuple[int, list[int]]:
        """Return the offset of an entry, and the offsets of all of its directory."""
        entries = rng.choice([each for each in self.directories if each])
        return rng.choice(entries), entries


def tiff_entry(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change tag, type, count or value of entries, or copy one over another."""
    tiff, changed = Tiff(content), bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, entries = tiff.choose(rng)
        action = rng.randrange(6)
        if action == 0:
            tiff.write(changed, at, rng.choice(TIFF_TAGS), "H")
        elif action == 1:
            tiff.write(changed, at + 2, rng.choice(TIFF_TYPES), "H")
        elif action == 2:
            tiff.write(changed, at + 4, rng.choice(NUMBERS))
        elif action == 3:
            start = rng.choice(entries)
            changed[at : at + tiff.entry] = changed[start : start + tiff.entry]
        else:
            is_short = struct.unpack_from(f"{tiff.order}H", changed, at + 2)[0] == 3
            value = rng.choice((*TIFF_VALUES, *NUMBERS, len(content) - 8, at))
            tiff.write(changed, at + 4 + tiff.width, value, "H" if is_short else None)
    return bytes(changed)


def tiff_link(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Link a directory to an earlier one, to itself or to any place, or append copies of one as further pages."""
    tiff, changed = Tiff(content), bytearray(content)
    targets = [tiff.read(content, link) for link in tiff.links]
    link, first = rng.choice(tiff.links), targets[0]
    if rng.random() < 0.5:
        tiff.write(changed, link, rng.choice((*targets, rng.randrange(len(content)))))
        return bytes(changed)
    page = content[first : first + tiff.head + tiff.entry * len(tiff.directories[0])] + bytes(tiff.width)
    for _ in range(rng.choice((1, 3, 3000))):
        tiff.write(changed, link, len(changed))
        changed += page
        link = len(changed) - tiff.width
    if rng.random() < 0.5:
        tiff.write(changed, link, rng.choice((first, len(content))))
    return bytes(changed)


def tiff_text(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Write a text that readers parse into an entry: descriptions of other tools, nodata values, metadata."""
    tiff, changed, text = Tiff(content), bytearray(content), rng.choice(TIFF_TEXTS).encode() + b"\0"
    at, _ = tiff.choose(rng)
    tiff.write_entry(changed, at, rng.choice((270, 270, 305, 42112, 42113, 34737, 700)), 2, len(text), len(content))
    return bytes(changed + text)


def tiff_segment(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Make every strip or tile a bomb, another file or noise, in some compression."""
    tiff, changed = Tiff(content), bytearray(content)
    segment = rng.choice((bomb(15), other, rng.randbytes(64)))
    values = {259: rng.choice((8, 32946, 5, 7, 50000, 34933)), 273: len(content), 324: len(content),
              279: len(segment), 325: len(segment)}  # fmt: skip
    for at in (at for entries in tiff.directories for at in entries):
        (tag,) = struct.unpack_from(f"{tiff.order}H", content, at)
        if tag in values:
            kind = 3 if tag == 259 else 16 if tiff.width == 8 else 4
            tiff.write_entry(changed, at, tag, kind, 1, values[tag])
    return bytes(changed + segment)


def broken_exif(rng: Rng) -> bytes:
    """Return an EXIF block with an orientation, and a fault."""
    entries = [(274, 3, 1, struct.pack("<HH", rng.randint(1, 9), 0)), (305, 2, 40, struct.pack("<I", 8))]
    entries += [(rng.choice(TIFF_TAGS), rng.choice(TIFF_TYPES), rng.choice(NUMBERS) % 2**32, integer(rng, 4))]
    rng.shuffle(entries)
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)
    return block if rng.random() < 0.5 else rng.choice((tiff_entry, tiff_link, flip_bits))(rng, block, block)


def exif(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Write the image again with a broken EXIF block."""
    written = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.save(written, image.format, exif=broken_exif(rng))
    return written.getvalue()


# --- PNG -------------------------------------------------------------------------------------------------------------

PNG_HEADER: tuple[Field, ...] = ((0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1))
PNG_TYPES = (b"tRNS", b"PLTE", b"gAMA", b"cHRM", b"acTL", b"fcTL", b"pHYs", b"sBIT", b"tIME", b"bKGD")


def split_png(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return types and contents of a PNG's chunks."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def join_png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write a PNG with valid checksums."""
    written = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        written += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return written


def png_chunk(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change, remove, copy or add chunks."""
    chunks = split_png(content)
    place, action = rng.randrange(len(chunks)), rng.randrange(6)
    kind, data = chunks[place]
    if action == 0:
        chunks[place] = (kind, generic(rng, data, other) if data else rng.randbytes(4))
    elif action == 1:
        del chunks[place]
    elif action == 2:
        chunks.insert(rng.randint(0, len(chunks)), rng.choice((chunks[place], rng.choice(split_png(other)))))
    elif action == 3:
        chunks[0] = (chunks[0][0], set_field(rng, chunks[0][1], 0, PNG_HEADER, ">"))
    elif action == 4:
        chunks.insert(1, (rng.choice(PNG_TYPES), rng.randbytes(rng.choice((0, 1, 2, 3, 4, 8, 26, 768, 769)))))
    else:
        chunks.insert(1, rng.choice(((rng.choice((b"iCCP", b"zTXt")), b"x\0\0" + bomb(15)), (b"IDAT", bomb(15)))))
    return join_png(chunks)


def png_pixels(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the filtered rows below the compression."""
    chunks = split_png(content)
    rows = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    rest = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    return join_png([*rest[:-1], (b"IDAT", zlib.compress(generic(rng, rows, other))), rest[-1]])


# --- archives --------------------------------------------------------------------------------------------------------

TAR_VALUES: dict[str, Sequence[Any]] = {
    "name": NAMES, "linkname": NAMES, "mode": NUMBERS, "size": NUMBERS, "mtime": NUMBERS,
    "type": [bytes([code]) for code in b"\x000123456789KLNSVxgXA"],
}  # fmt: skip
TAR_NUMBERS: tuple[Field, ...] = ((100, 8), (124, 12), (136, 12), (257, 8))  # mode, size, mtime, magic
PAX_RECORDS = (
    ("path", "../outside.jpg"), ("path", "x" * 5000), ("size", "-512"), ("size", "9" * 14), ("size", "x"),
    ("linkpath", "/etc/passwd"), ("mtime", "9" * 400), ("hdrcharset", "BINARY"), ("GNU.sparse.major", "1"),
    ("GNU.sparse.map", "0,1,-5,9"), ("GNU.sparse.size", "-1"),
)  # fmt: skip
ZIP_FIELDS: tuple[tuple[bytes, tuple[Field, ...]], ...] = (
    (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
    (b"PK\x01\x02", ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))),
    (b"PK\x05\x06", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
)


def gzip_content(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the data below the compression; the trailer stays valid."""
    inner, another = gzip.decompress(content), gzip.decompress(other)
    mutators = (tar_header, tar_headers) if inner[257:262] == b"ustar" else (set_integer,)
    return gzip.compress(rng.choice((*mutators, *mutators, *GENERIC))(rng, inner, another), mtime=0)


def gzip_bomb(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Append a bomb as a further member, or replace the file by one."""
    return rng.choice((content, b"")) + bomb(31)


def _tar_member(rng: Rng, content: bytes) -> tuple[int, tarfile.TarInfo]:
    at = rng.choice([at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"])
    return at, tarfile.TarInfo.frombuf(content[at : at + 512], "utf-8", "surrogateescape")


def tar_header(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change a field of a header; the checksum stays valid."""
    at, member = _tar_member(rng, content)
    if rng.random() < 0.2:
        (start, length), value = rng.choice(TAR_NUMBERS), rng.choice((b"\xff" * 12, b"-777", b"\x80" + b"\xff" * 11))
        header = overwrite(content[at : at + 512], start, value[:length].ljust(length, b"\0"))
        header = overwrite(header, 148, b" " * 8)
        return overwrite(content, at, overwrite(header, 148, b"%06o\0 " % sum(header)))
    name = rng.choice(("size", "type", *TAR_VALUES))
    setattr(member, name, rng.choice(TAR_VALUES[name]))
    block = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")  # with a header of its own for a long name
    return content[:at] + block + content[at + 512 :]


def tar_headers(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Insert headers that describe the next member, one or thousands: long names and extended headers."""
    at, _ = _tar_member(rng, content)
    key, value = rng.choice(PAX_RECORDS)
    length = len(key) + len(value) + 3
    pax = f"{length + len(str(length))} {key}={value}\n".encode()
    name = rng.choice(NAMES).encode(errors="surrogateescape") + b"\0"
    body = rng.choice((pax, pax, name, b"5 x=\n", b"\xff" * 20, b""))
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = bytes([rng.choice(b"LKxgXxL")]), len(body)
    block = header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    return content[:at] + block * rng.choice((1, 1, 2, 3000)) + content[at:]


def zip_member(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Write the archive again with a member changed, renamed, linked, compressed, duplicated or made a bomb."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(written, "w") as target:
        members = [(info, source.read(info)) for info in source.infolist()]
        place, action = rng.randrange(len(members)), rng.randrange(6)
        info, data = members[place]
        if action == 0:
            changes = (pickle_number, *GENERIC[:4]) if info.filename.endswith(".pkl") else GENERIC
            members[place] = (info, rng.choice(changes)(rng, data, other))
        elif action == 1:
            info.filename = rng.choice(NAMES)
        elif action == 2:
            info.external_attr = rng.choice((0o120777 << 16, 0o020666 << 16, 0o040755 << 16 | 0x10, 2**32 - 1))
        elif action == 3:
            info.compress_type = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED))
        elif action == 4:
            members.insert(place, (zipfile.ZipInfo(info.filename.upper()), data))
        else:
            info.compress_type = zipfile.ZIP_DEFLATED
            members[place] = (info, bytes(BOMB_BYTES // 2))
        for member, body in members:
            target.writestr(member, body)
    return written.getvalue()


def zip_field(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change a number in a local header, an entry of the directory, or the directory's end."""
    signature, fields = rng.choice(ZIP_FIELDS)
    at = rng.choice([match.start() for match in re.finditer(re.escape(signature), content)])
    return set_field(rng, content, at, fields)


# --- text and tensors ------------------------------------------------------------------------------------------------

JSON_VALUES = (
    "null", "true", "[]", "{}", '""', "0", "-1", "1e308", "-1e400", "NaN", "Infinity", "0.5", "3000", "1000000",
    str(2**31), str(2**63), "9" * 5000, '"\\ud800"', '"' + "x" * 3000 + '"', '"../../outside"', '"/etc/passwd"',
    '"\\u0000"', '"<script>"', "[1, 1]", "[0, NaN]", "[" * 100_000, '{"a":' * 3000, '["a", "a"]', "[[1]]", '"unet"',
)  # fmt: skip
# A string (also a key), a number, a constant, or a list or object without others inside.
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\[[^\[\]{}]*\]|\{[^\[\]{}]*\}')
NPY_SHAPES = (
    "()", "(0, 4, 3)", "(-1, 4, 3)", "(10**30, 1)", "(1" + "0" * 30 + ", 1)", "(100000, 100000, 1)", "(2147483647, 3)",
    "(40000, 40000)", "(16, 24, 3, 1)", "(True, 8)", "(16.0, 24)", "(" * 5000,
)  # fmt: skip
NPY_DTYPES = ("'|O'", "'<f8'", "'<c8'", "'<U10'", "'|V3'", "({},)", "[('a', '<f4')]", "'<m8[s]'", "''", "'<i99'",
              "'|b1'")  # fmt: skip
NPY_HEADERS = (b"(" * 5000, b"{" * 300, b"'" * 9, b"{'descr': '<f4'}", b"1" * 5000, b"\xff" * 20, b"-" * 9000)


def json_token(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Replace keys and values by interesting ones or by others of the files."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        tokens = list(TOKEN.finditer(content))
        token = rng.choice([*tokens, *(each for each in tokens if each[0][:1] in b"[{")])
        words = [rng.choice(JSON_VALUES).encode(), rng.choice(tokens)[0], rng.choice(TOKEN.findall(other) or [b"1"])]
        content = content[: token.start()] + rng.choice((words[0], *words)) + content[token.end() :]
    return content


def safetensors_header(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the JSON header, whose length stays valid, or the length alone."""
    (length,) = struct.unpack_from("<Q", content)
    if rng.random() < 0.2:
        return integer(rng, 8) + content[8:]
    header = content[8 : 8 + length]
    header = json_token(rng, header, header)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def npy_header(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change type, order or shape in the header, whose length stays valid."""
    (length,) = struct.unpack_from("<H", content, 8)
    header = content[10 : 10 + length].rstrip()
    action = rng.randrange(5)
    if action == 0:
        header = re.sub(rb"\([^)]*\)", rng.choice(NPY_SHAPES).encode(), header)
    elif action == 1:
        header = re.sub(rb"'descr': [^,]*", b"'descr': " + rng.choice(NPY_DTYPES).encode(), header)
    elif action == 2:
        header = rng.choice(NPY_HEADERS)
    elif action == 3:
        header = generic(rng, header, header)
    version, form = (2, "<I") if len(header) > 65000 or rng.random() < 0.2 else (1, "<H")
    start = b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, len(header) + 1)
    return start + header + b"\n" + content[10 + length :]


def pickle_number(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change an integer of a pickle: shapes, strides, offsets."""
    match = rng.choice(list(re.finditer(rb"[KMJ]", content)))
    size, rest = {b"K": 1, b"M": 2, b"J": 4}[match[0]], content[match.end() :]
    if rng.random() < 0.5:  # an integer of four bytes, whatever size it had
        return content[: match.start()] + b"J" + integer(rng, 4) + rest[size:]
    return content[: match.end()] + integer(rng, size) + rest[size:]


def onnx_parts(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the metadata, a weight's shape or place, or a node's type."""
    import onnx

    model = onnx.load_from_string(content)
    weight, entry, action = rng.choice(model.graph.initializer), model.metadata_props[0], rng.randrange(5)
    if action <= 1:
        entry.value = json_token(rng, entry.value.encode(), entry.value.encode()).decode(errors="replace")
    elif action == 2:
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice((0, -1, 7, 10**6, 2**62))
    elif action == 3:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", rng.choice(("../outside.bin", "/etc/passwd", "missing"))), ("length", "64")):
            weight.external_data.add(key=key, value=value)
    else:
        types = ("Resize", "Loop", "Pad", "Tile", "Expand", "Missing", "ConvTranspose", "Conv")
        rng.choice(model.graph.node).op_type = rng.choice(types)
    return model.SerializeToString()


# Structured mutators by kind of file; one that stands twice is drawn twice as often.
STRUCTURED: dict[str, tuple[Mutator, ...]] = {
    "gzip": (gzip_content, gzip_content, gzip_content, gzip_bomb),
    "jpeg": (exif,),
    "json": (json_token,),
    "jsonl": (json_token,),
    "npy": (npy_header,),
    "onnx": (onnx_parts,),
    "pickle": (pickle_number,),
    "png": (png_chunk, png_chunk, png_pixels, exif),
    "safetensors": (safetensors_header,),
    "tar": (tar_header, tar_headers),
    "tiff": (tiff_entry, tiff_entry, tiff_entry, tiff_link, tiff_text, tiff_text, tiff_segment),
    "webp": (exif,),
    "zip": (zip_member, zip_member, zip_field),
}


def mutate(rng: Rng, kind: str, content: bytes, other: bytes) -> tuple[bytes, list[str]]:
    """Apply one to four mutators, most of them structured.

    Args:
        rng: The case's.
        kind: A key of `STRUCTURED`, or any other for a format without structured mutators.
        content: The file.
        other: Another file of the format.

    Returns:
        The changed bytes, and the names of the mutators.
    """
    steps = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if len(content) > LARGEST:
            break
        structured = STRUCTURED.get(kind, ())
        mutator = rng.choice(structured if structured and rng.random() < 0.6 else GENERIC)
        try:
            content = mutator(rng, content, other)
        except Exception as error:  # an earlier one has left no structure to parse
            steps.append(f"{mutator.__name__} not applicable ({type(error).__name__})")
        else:
            steps.append(mutator.__name__)
    return content, steps
