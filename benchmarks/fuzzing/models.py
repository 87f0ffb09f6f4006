"""Changes of JSON, and of the headers of safetensors, .npy, pickles and ONNX; lengths and checksums stay valid."""

import json
import re
import struct
from collections.abc import Iterator
from typing import Any

from benchmarks.fuzzing.generic import GENERIC, Rng, integer

JSON_VALUES = (
    "null", "true", "[]", "{}", '""', "0", "-1", "1e308", "-1e400", "NaN", "Infinity", "0.5", "3000", "1000000",
    str(2**31), str(2**63), "9" * 5000, '"\\ud800"', '"' + "x" * 3000 + '"', '"../../outside"', '"/etc/passwd"',
    '"\\u0000"', '"<script>"', "[1, 1]", "[0, NaN]", "[" * 100_000, '{"a":' * 3000, '["a", "a"]', "[[1]]", '"unet"',
)  # fmt: skip


TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


def json_token(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Replace numbers, strings and constants by interesting values or by others of the files."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        tokens = list(TOKEN.finditer(content))
        token = rng.choice(tokens)
        words = [rng.choice(JSON_VALUES).encode(), rng.choice(tokens)[0], rng.choice(TOKEN.findall(other) or [b"1"])]
        content = content[: token.start()] + rng.choice((words[0], *words)) + content[token.end() :]
    return content


def json_tree(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Replace, remove or add a value at any depth."""
    tree = json.loads(content)
    holders = list(_holders(tree))
    holder = rng.choice([each for each in holders if each] or [tree])
    key: Any = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    action = rng.randrange(4)
    if action == 0:
        del holder[key]
    elif action == 1:
        holder[key] = rng.choice(
            (None, True, -1, 0, 2.5, 10**6, 3000, float("nan"), [], {}, "x", [1, 1], ["x"], {"x": 1})
        )
    elif action == 2:
        holder[key] = rng.choice(holders)  # one around it is a cycle, which is refused below
    elif isinstance(holder, dict):
        holder[rng.choice(("x", "__class__", "../x", "\ud800", "networks", "files", "state"))] = holder[key]
    else:
        holder.extend([holder[key]] * rng.choice((1, 1000)))
    return json.dumps(tree).encode()


def _holders(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for value in list(tree.values() if isinstance(tree, dict) else tree):
            yield from _holders(value)


def safetensors_header(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the JSON header, its length stays valid; or the length alone."""
    (length,) = struct.unpack_from("<Q", content)
    if rng.random() < 0.2:
        return integer(rng, 8) + content[8:]
    header = rng.choice((json_token, json_token, json_tree))(rng, content[8 : 8 + length], content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def npy_header(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change type, order or shape in the header; its length stays valid."""
    (length,) = struct.unpack_from("<H", content, 8)
    header = content[10 : 10 + length].rstrip()
    shapes = ("()", "(0, 4, 3)", "(-1, 4, 3)", "(10**30, 1)", "(1" + "0" * 30 + ", 1)", "(100000, 100000, 1)",
              "(2147483647, 3)", "(40000, 40000)", "(16, 24, 3, 1)", "(True, 8)", "(16.0, 24)", "(" * 5000)  # fmt: skip
    kinds = (
        "'|O'",
        "'<f8'",
        "'<c8'",
        "'<U10'",
        "'|V3'",
        "({},)",
        "[('a', '<f4')]",
        "'<m8[s]'",
        "''",
        "'<i99'",
        "'|b1'",
    )
    action = rng.randrange(5)
    if action == 0:
        header = re.sub(rb"\([^)]*\)", rng.choice(shapes).encode(), header)
    elif action == 1:
        header = re.sub(rb"'descr': [^,]*", b"'descr': " + rng.choice(kinds).encode(), header)
    elif action == 2:
        header = rng.choice(
            (b"(" * 5000, b"{" * 300, b"'" * 9, b"{'descr': '<f4'}", b"1" * 5000, b"\xff" * 20, b"-" * 9000)
        )
    elif action == 3:
        header = rng.choice(GENERIC)(rng, header, header)
    version, form = (2, "<I") if len(header) > 65000 or rng.random() < 0.2 else (1, "<H")
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack(form, len(header) + 1)
        + header
        + b"\n"
        + content[10 + length :]
    )


def pickle_number(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change a whole number of a pickle: shapes, strides, offsets."""
    places = [match.start() for match in re.finditer(rb"[KMJ]", content)]
    at = rng.choice(places)
    size = {75: 1, 77: 2, 74: 4}[content[at]]
    if rng.random() < 0.5:  # a number of four bytes, whatever size it had
        return content[:at] + b"J" + integer(rng, 4) + content[at + 1 + size :]
    return content[: at + 1] + integer(rng, size) + content[at + 1 + size :]


def onnx_parts(rng: Rng, content: bytes, other: bytes) -> bytes:
    """Change the metadata, a weight's shape or place, an attribute, or the type of a node."""
    import onnx

    model = onnx.load_from_string(content)
    weight, node, action = rng.choice(model.graph.initializer), rng.choice(model.graph.node), rng.randrange(6)
    if action <= 1:
        entry = model.metadata_props[0]
        text = rng.choice((json_token, json_tree))(rng, entry.value.encode(), entry.value.encode())
        entry.value = text.decode(errors="replace")
    elif action == 2:
        weight.dims[rng.randrange(len(weight.dims))] = rng.choice((0, -1, 7, 10**6, 2**62))
    elif action == 3:
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", rng.choice(("../outside.bin", "/etc/passwd", "missing"))), ("length", "64")):
            weight.external_data.add(key=key, value=value)
        weight.ClearField("raw_data")
    elif action == 4 and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.ints[:] = [rng.choice((0, -1, 1, 3, 10**6, 2**40)) for _ in attribute.ints]
    else:
        node.op_type = rng.choice(("Resize", "Loop", "Pad", "Tile", "Expand", "Missing", "ConvTranspose", "Conv"))
    return model.SerializeToString()
