"""Changes of any bytes.

A mutator takes a generator of random numbers, the file's bytes and another file of the same format, and returns changed
bytes.
"""

import random
import zlib
from collections.abc import Callable
from functools import cache

Rng = random.Random
Mutator = Callable[[Rng, bytes, bytes], bytes]

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    256,
    4095,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    -1,
    -512,
)
BOMB_BYTES = 2**28  # that a bomb decompresses to: beyond every limit that a small file should reach


@cache
def bomb(wbits: int) -> bytes:
    """Compress `BOMB_BYTES` zeros; ``wbits`` as in `zlib.compressobj`: -15 raw, 15 zlib, 31 gzip."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, wbits), bytes(2**20)
    return b"".join(packer.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))) + packer.flush()


def integer(rng: Rng, size: int, order: str = "little") -> bytes:
    """Return an interesting whole number in so many bytes."""
    value = rng.choice(NUMBERS) if rng.random() < 0.8 else rng.getrandbits(8 * size)
    return (value % 2 ** (8 * size)).to_bytes(size, "little" if order == "little" else "big")


def flip_bits(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Flip up to 16 bits anywhere."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 16)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_run(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Fill a run of bytes with 0, 0xff or random values."""
    start, length = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 32, 200))
    fill = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return content[:start] + fill + content[start + length :]


def set_integer(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Write an interesting number over 1 to 8 bytes, mostly near the start, where headers are."""
    size = rng.choice((1, 2, 4, 8))
    end = len(content) if rng.random() < 0.4 else min(len(content), 128)
    start = rng.randrange(max(1, end - size))
    return content[:start] + integer(rng, size, rng.choice(("little", "big"))) + content[start + size :]


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
    block = rng.choice((rng.randbytes(length), other[from_other : from_other + length]))
    return content[:start] + block + content[start:]


def splice(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Continue with another file of the format, from the same or any other place."""
    start = rng.randrange(len(content))
    return content[:start] + other[rng.choice((start, rng.randrange(len(other)))) :]


GENERIC: tuple[Mutator, ...] = (flip_bits, set_run, set_integer, truncate, duplicate, remove, insert, splice)
