"""What a model's description may say: limits that its config.json and an ONNX file's metadata share.

Nothing is imported here that the ONNX runner or a quick --help would have to wait for.
"""

import struct

MAX_SIDE = 8192  # pixels a side that a model may be trained at
MAX_CHANNELS = 10_000  # of an image that a model takes or gives
MAX_COLORS = 4096  # of a palette
LARGEST = 1e30  # of values in a range: differences of two stay finite in float32


def is_value_range(values: object) -> bool:
    """Return whether values are two numbers, the first below the second, also in float32."""
    if not isinstance(values, list | tuple) or len(values) != 2 or any(type(v) not in (int, float) for v in values):
        return False
    low, high = values
    return -LARGEST <= low < high <= LARGEST and struct.pack("f", low) != struct.pack("f", high)
