"""Changes of gzip, tar and zip; checksums and lengths that are not themselves changed stay valid."""

import gzip
import io
import re
import zipfile

from benchmarks.fuzzing.generic import BOMB_BYTES, GENERIC, NUMBERS, Mutator, Rng, bomb, integer, set_integer
from benchmarks.fuzzing.models import pickle_number

NAMES = (
    "../outside.jpg", "/tmp/outside.jpg", "a/../../outside.jpg", "C:\\x.jpg", "con.jpg", "x" * 300 + ".jpg", "", ".",
    "a\0b.jpg", "a\udc80.jpg", "\u202egpj.x", "a/" * 400 + "x.jpg", "NEW\nLINE.jpg", "0.a.jpg", "0.b.jpg",
)  # fmt: skip


def gzip_content(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change what is below the compression; the trailer stays valid."""
    inner, another = gzip.decompress(content), gzip.decompress(other)
    mutators = (tar_header, tar_headers) if inner[257:262] == b"ustar" else (set_integer,)
    return gzip.compress(rng.choice((*mutators, *mutators, *GENERIC))(rng, inner, another), mtime=0)


def gzip_bomb(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Append a bomb, as a further member or in place of the whole."""
    return rng.choice((content, b"")) + bomb(31)


def tar_header(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change a field of a header; the checksum stays valid."""
    at = rng.choice([place for place in range(0, len(content), 512) if content[place + 257 : place + 262] == b"ustar"])
    fields = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12), "type": (156, 1),
              "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}  # fmt: skip
    name = rng.choice(("size", "size", "type", "type", *fields))
    start, length = fields[name]
    if name in ("name", "link", "prefix"):
        value = rng.choice(NAMES).encode(errors="surrogateescape")
    elif name == "type":
        value = rng.choice((b"\0", *(bytes([code]) for code in b"0123456789KLNSVxgXA")))
    else:
        number = rng.choice(NUMBERS)
        value = rng.choice((b"%o" % abs(number), b"\x80" + (number % 2**88).to_bytes(11, "big"), b"\xff" * 12, b"-777"))
    header = bytearray(content[at : at + 512])
    header[start : start + length] = value[:length].ljust(length, b"\0")
    return content[:at] + checked(header) + content[at + 512 :]


def checked(header: bytearray) -> bytes:
    """Return a tar header with the checksum that fits it."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def tar_headers(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Insert headers that describe the next member: long names and extended headers, one or thousands."""
    places = [place for place in range(0, len(content), 512) if content[place + 257 : place + 262] == b"ustar"]
    at = rng.choice(places)
    record = rng.choice(("path=../outside.jpg", "size=-512", "size=99999999999999", "size=x", "linkpath=/etc/passwd",
                         "GNU.sparse.major=1", "GNU.sparse.map=0,1,-5,9", "GNU.sparse.size=-1", "hdrcharset=BINARY",
                         "path=" + "x" * 5000, "mtime=" + "9" * 400))  # fmt: skip
    length = len(record) + 3
    pax = f"{length + len(str(length))} {record}\n".encode()
    body = rng.choice(
        (pax, pax, rng.choice(NAMES).encode(errors="surrogateescape") + b"\0", b"5 x=\n", b"\xff" * 20, b"")
    )
    header = bytearray(512)
    header[:6], header[124:136], header[257:265] = b"./@Lon", b"%011o\0" % len(body), b"ustar\x0000"
    header[156] = rng.choice(b"LKxgXxL")
    block = checked(header) + body + bytes(-len(body) % 512)
    return content[:at] + block * rng.choice((1, 1, 2, 3000)) + content[at:]


def zip_member(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Write the archive again with a member changed, renamed, doubled, linked or made a bomb; checksums stay valid."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(written, "w") as target:
        members = source.infolist()
        chosen, action = rng.randrange(len(members)), rng.randrange(6)
        for number, member in enumerate(members):
            data, info = source.read(member), zipfile.ZipInfo(member.filename, (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr = member.compress_type, member.external_attr
            if number == chosen and action == 0:
                changes = (pickle_number, *GENERIC[:4]) if member.filename.endswith(".pkl") else GENERIC
                data = rng.choice(changes)(rng, data, other)
            elif number == chosen and action == 1:
                info.filename = rng.choice(NAMES)
            elif number == chosen and action == 2:
                info.external_attr = rng.choice((0o120777 << 16, 0o020666 << 16, 0o040755 << 16 | 0x10, 2**32 - 1))
            elif number == chosen and action == 3:
                info.compress_type, data = zipfile.ZIP_DEFLATED, bytes(BOMB_BYTES // 2)
            elif number == chosen and action == 4:
                info.compress_type = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED))
            if number == chosen and action == 5:
                target.writestr(zipfile.ZipInfo(member.filename.upper(), (1980, 1, 1, 0, 0, 0)), data)
            target.writestr(info, data)
    return written.getvalue()


def zip_field(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change a number in a local header, an entry of the directory, or the directory's end."""
    signature, fields = rng.choice((
        (b"PK\x03\x04", ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
        (b"PK\x01\x02", ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))),
        (b"PK\x05\x06", ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
    ))  # fmt: skip
    at = rng.choice([match.start() for match in re.finditer(re.escape(signature), content)])
    offset, size = rng.choice(fields)
    return content[: at + offset] + integer(rng, size) + content[at + offset + size :]


GZIP: tuple[Mutator, ...] = (gzip_content, gzip_content, gzip_content, gzip_bomb)
ZIP: tuple[Mutator, ...] = (zip_member, zip_member, zip_field)
TAR: tuple[Mutator, ...] = (tar_header, tar_headers)
