"""Changes of TIFF, EXIF, PNG, JPEG and WebP; checksums and lengths that are not themselves changed stay valid."""

import struct
import zlib

from benchmarks.fuzzing.generic import GENERIC, NUMBERS, Mutator, Rng, bomb, flip_bits, integer

TIFF_TEXTS = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="24" SizeY="16" SizeC="3" SizeZ="1" SizeT="1"><TiffData IFD="0" '
    'PlaneCount="1"><UUID FileName="../outside.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>',
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    'DimensionOrder="XYCZT" Type="uint8" SizeX="24" SizeY="16" SizeC="1" SizeZ="100000" SizeT="1"><TiffData IFD="0" '
    'PlaneCount="100000000"/></Pixels></Image></OME>',
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
EXIF_TYPES = (0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 16, 99)


def tiff_entries(content: bytes) -> tuple[str, bool, list[list[int]], list[int]]:
    """Find the parts of a TIFF.

    Returns:
        struct's sign of its byte order, whether it is BigTIFF, the offsets of each directory's entries, and the offsets
        of the links to the next directory (the first is the header's).
    """
    order = {b"II": "<", b"MM": ">"}[content[:2]]
    directories: list[list[int]] = []
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    links = [8 if big else 4]
    head, entry, number = (8, 20, "Q") if big else (2, 12, "I")
    while len(directories) < 16:
        (offset,) = struct.unpack_from(f"{order}{number}", content, links[-1])
        if not 0 < offset < len(content) - head or offset + head in [d[0] for d in directories if d]:
            break
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, offset)
        directories.append([offset + head + entry * i for i in range(min(count, 100))])
        links.append(offset + head + entry * count)
        if links[-1] + (8 if big else 4) > len(content):
            links.pop()
            break
    return order, big, directories, links


def tiff_entry(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change tag, type, count or value of entries, or copy one over another."""
    order, big, directories, _ = tiff_entries(content)
    size, number = (20, "Q") if big else (12, "I")
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        entries = rng.choice([each for each in directories if each])
        at, width = rng.choice(entries), 8 if big else 4
        place, action = at + 4 + width, rng.randrange(6)
        if action == 0:
            struct.pack_into(f"{order}H", changed, at, rng.choice(TIFF_TAGS))
        elif action == 1:
            struct.pack_into(f"{order}H", changed, at + 2, rng.choice(EXIF_TYPES))
        elif action == 2:
            struct.pack_into(f"{order}{number}", changed, at + 4, rng.choice(NUMBERS) % 2 ** (8 * width))
        elif action == 3:
            start = rng.choice(entries)
            copied = bytearray(changed[start : start + size])
            changed[at : at + size] = copied
        else:
            kind = struct.unpack_from(f"{order}H", changed, at + 2)[0]
            value = rng.choice((*TIFF_VALUES, *NUMBERS, len(content) - 8, at))
            form, short = ("H", 2) if kind == 3 else (number, width)
            struct.pack_into(f"{order}{form}", changed, place, value % 2 ** (8 * short))
    return bytes(changed)


def tiff_link(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Link a directory to an earlier one, to itself, to any place, or append copies of one as further pages."""
    order, big, directories, links = tiff_entries(content)
    number = "Q" if big else "I"
    changed = bytearray(content)
    targets = [struct.unpack_from(f"{order}{number}", changed, link)[0] for link in links]
    if rng.random() < 0.5:
        value = rng.choice((*targets, rng.randrange(len(content))))
        struct.pack_into(f"{order}{number}", changed, rng.choice(links), value)
        return bytes(changed)
    head, size = (8, 20) if big else (2, 12)
    first = targets[0]
    block = changed[first : first + head + size * len(directories[0])]
    link = rng.choice(links)
    for _ in range(rng.choice((1, 3, 3000))):
        struct.pack_into(f"{order}{number}", changed, link, len(changed))
        changed += block + bytes(8 if big else 4)
        link = len(changed) - (8 if big else 4)
    if rng.random() < 0.5:
        struct.pack_into(f"{order}{number}", changed, link, rng.choice((first, len(content))))
    return bytes(changed)


def tiff_text(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Put a text that readers take apart into an entry: descriptions of other tools, no-data values, metadata."""
    order, big, directories, _ = tiff_entries(content)
    text = rng.choice(TIFF_TEXTS).encode() + b"\0"
    changed = bytearray(content)
    at = rng.choice(rng.choice([each for each in directories if each]))
    tag = rng.choice((270, 270, 305, 42112, 42113, 34737, 700))
    struct.pack_into(f"{order}HH{'QQ' if big else 'II'}", changed, at, tag, 2, len(text), len(changed))
    return bytes(changed + text)


def tiff_segment(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Let every strip or tile be a bomb, or a block of another file, in some compression."""
    order, big, directories, _ = tiff_entries(content)
    segment = rng.choice((bomb(15), other, rng.randbytes(64)))
    changed, number = bytearray(content), "Q" if big else "I"
    for at in (at for entries in directories for at in entries):
        tag = struct.unpack_from(f"{order}H", content, at)[0]
        value = {259: rng.choice((8, 32946, 5, 7, 50000, 34933)), 273: len(content), 324: len(content),
                 279: len(segment), 325: len(segment)}.get(tag)  # fmt: skip
        if value is not None:
            kind = 3 if tag == 259 else 16 if big else 4
            struct.pack_into(f"{order}HH{number}", changed, at, tag, kind, 1)
            struct.pack_into(f"{order}{'H' if kind == 3 else number}", changed, at + (12 if big else 8), value)
    return bytes(changed + segment)


def broken_exif(rng: Rng) -> bytes:
    """Return an EXIF block with an orientation, and something wrong."""
    entries = [(274, 3, 1, struct.pack("<HH", rng.randint(1, 9), 0)), (305, 2, 40, struct.pack("<I", 8))]
    entries += [(rng.choice(TIFF_TAGS), rng.choice(EXIF_TYPES), rng.choice(NUMBERS) % 2**32, integer(rng, 4))]
    rng.shuffle(entries)
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)
    return block if rng.random() < 0.5 else rng.choice((tiff_entry, tiff_link, flip_bits))(rng, block, block)


# --- PNG, JPEG, WebP -------------------------------------------------------------------------------------------------


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Split a PNG into types and contents of its chunks."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Write a PNG of chunks, with valid checksums."""
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_chunk(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change, remove, copy, move or add chunks."""
    chunks = png_chunks(content)
    place, action = rng.randrange(len(chunks)), rng.randrange(7)
    kind, data = chunks[place]
    if action == 0:
        chunks[place] = (kind, rng.choice(GENERIC)(rng, data, other) if data else rng.randbytes(4))
    elif action == 1:
        del chunks[place]
    elif action == 2:
        chunks.insert(rng.randrange(len(chunks)), (kind, data))
    elif action == 3:
        header = bytearray(chunks[0][1])
        at = rng.randrange(len(header))
        header[at : at + 4] = integer(rng, 4, "big") if at < 5 else bytes([rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))])
        chunks[0] = (chunks[0][0], bytes(header))
    elif action == 4:
        extra = rng.choice(png_chunks(other))
        chunks.insert(rng.randint(1, len(chunks)), extra)
    elif action == 5:
        kind = rng.choice((b"tRNS", b"PLTE", b"gAMA", b"cHRM", b"acTL", b"fcTL", b"pHYs", b"sBIT", b"tIME", b"bKGD"))
        chunks.insert(1, (kind, rng.randbytes(rng.choice((0, 1, 2, 3, 4, 8, 26, 768, 769)))))
    else:
        packed = rng.choice((b"iCCP", b"zTXt")), b"x\0\0" + bomb(15)
        chunks.insert(1, rng.choice((packed, (b"eXIf", broken_exif(rng)), (b"IDAT", bomb(15)))))
    return join_png(chunks)


def png_pixels(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the filtered rows below the compression."""
    chunks = png_chunks(content)
    rows = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    rest = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
    return join_png([*rest[:-1], (b"IDAT", zlib.compress(rng.choice(GENERIC)(rng, rows, other))), rest[-1]])


def jpeg_segment(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change a segment before the pixels, or add EXIF or another file's."""
    segments, at = [], 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", content, at + 2)
        segments.append(content[at : at + 2 + length])
        at += 2 + length
    place, action = rng.randrange(len(segments)), rng.randrange(5)
    marker, data = segments[place][:2], segments[place][4:]
    if action == 0:
        data = rng.choice(GENERIC)(rng, data, other)[:65533]
        segments[place] = marker + struct.pack(">H", len(data) + 2) + data
    elif action == 1:
        del segments[place]
    elif action == 2:
        segments.insert(rng.randrange(len(segments)), segments[place])
    elif action == 3:
        frame = next(i for i, each in enumerate(segments) if each[1] in (0xC0, 0xC2))
        sizes = integer(rng, 2, "big") + integer(rng, 2, "big")
        segments[frame] = segments[frame][:5] + sizes + segments[frame][9:]
    else:
        exif = b"Exif\0\0" + broken_exif(rng)
        segments.insert(0, b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    return content[:2] + b"".join(segments) + content[at:]


def webp_chunk(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change, copy, remove or add a chunk; RIFF's size stays valid."""
    chunks, at = [], 12
    while at + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, at + 4)
        chunks.append((content[at : at + 4], content[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    place, action = rng.randrange(len(chunks)), rng.randrange(4)
    kind, data = chunks[place]
    if action == 0:
        chunks[place] = (kind, rng.choice(GENERIC)(rng, data, other))
    elif action == 1:
        chunks.insert(rng.randint(0, len(chunks)), chunks[place])
    elif action == 2:
        del chunks[place]
    else:
        flags = b"VP8X", bytes([0x08]) + bytes(3) + integer(rng, 4)[:3] + integer(rng, 4)[:3]
        chunks = [
            flags,
            *(chunk for chunk in chunks if chunk[0] not in (b"VP8X", b"EXIF")),
            (b"EXIF", broken_exif(rng)),
        ]
    parts = (kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


TIFF: tuple[Mutator, ...] = (tiff_entry, tiff_entry, tiff_entry, tiff_link, tiff_text, tiff_text, tiff_segment)
PNG: tuple[Mutator, ...] = (png_chunk, png_chunk, png_pixels)
