"""Limits of values in a model's config.json and in an ONNX file's metadata.

Imports nothing heavy, for the ONNX runner and --help.
"""

import struct

MAX_SIDE = 8192  # pixels a side that a model may be trained at
MAX_CHANNELS = 10_000  # of a model's input or output
MAX_COLORS = 4096  # of a palette
LARGEST = 1e30  # in a range of values, whose difference stays finite in float32


def is_value_range(values: object) -> bool:
    """Return whether values are two numbers in increasing order, also in float32."""
    if not isinstance(values, list | tuple) or len(values) != 2 or any(type(v) not in (int, float) for v in values):
        return False
    low, high = values
    return -LARGEST <= low < high <= LARGEST and struct.pack("f", low) != struct.pack("f", high)
