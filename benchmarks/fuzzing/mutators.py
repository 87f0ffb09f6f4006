"""Which changes are made to files of which kind."""

from benchmarks.fuzzing.archives import GZIP, TAR, ZIP
from benchmarks.fuzzing.generic import GENERIC, Mutator, Rng
from benchmarks.fuzzing.images import PNG, TIFF, jpeg_segment, webp_chunk
from benchmarks.fuzzing.models import json_token, json_tree, npy_header, onnx_parts, pickle_number, safetensors_header

STRUCTURED: dict[str, tuple[Mutator, ...]] = {
    "gzip": GZIP,
    "jpeg": (jpeg_segment,),
    "json": (json_token, json_tree),
    "jsonl": (json_token,),
    "npy": (npy_header,),
    "onnx": (onnx_parts,),
    "pickle": (pickle_number,),
    "png": PNG,
    "safetensors": (safetensors_header,),
    "tar": TAR,
    "tiff": TIFF,
    "webp": (webp_chunk,),
    "zip": ZIP,
}
LARGEST = 100_000  # bytes; what has grown beyond is a bomb, which takes too long to take apart again


def mutate(rng: Rng, kind: str, content: bytes, other: bytes) -> tuple[bytes, list[str]]:
    """Apply one to four mutators, half of them structured ones of the kind of file.

    Args:
        rng: The case's.
        kind: A key of `STRUCTURED`, or any other for a format without structured mutators.
        content: The file.
        other: Another file of the format, for splices.

    Returns:
        The changed bytes, and the names of the mutators that were applied.
    """
    steps = []
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if len(content) > LARGEST:
            break
        structured = STRUCTURED.get(kind, ())
        mutator = rng.choice(structured if structured and rng.random() < 0.6 else GENERIC)
        try:
            content = mutator(rng, content, other)
        except Exception as error:  # an earlier one has left no structure to be taken apart
            steps.append(f"{mutator.__name__} not applicable ({type(error).__name__})")
        else:
            steps.append(mutator.__name__)
    return content, steps
