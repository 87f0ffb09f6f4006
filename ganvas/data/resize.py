"""The one routine that scales images: training, validation, translation and evaluation all use it, and so all agree.

Free of torch, for the ONNX runner.
"""

import numpy as np
from PIL import Image


def resize(image: np.ndarray, height: int, width: int, *, flat: bool = False) -> np.ndarray:
    """Return an image at another size, by bicubic interpolation with antialiasing, as Pillow defines it.

    The result has the image's dtype. Integers are rounded and saturate; floats stay within the values that the image
    has, because bicubic interpolation overshoots at edges.

    Args:
        image: [H, W, C], uint8, uint16 or float32.
        height: Rows of the result.
        width: Columns of the result.
        flat: Take nearest neighbors instead, which keeps the colors of drawn maps and labels.

    Returns:
        [height, width, C], contiguous.
    """
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    if flat:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(int)
            for new, old in zip((height, width), image.shape[:2], strict=True)
        )
        return np.ascontiguousarray(image[rows][:, columns])
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        return _resize_pillow(image if image.shape[2] == 3 else image[:, :, 0], height, width).reshape(
            height, width, image.shape[2]
        )
    # Pillow scales deeper types in float32, one channel at a time.
    channels = np.ascontiguousarray(np.moveaxis(image, 2, 0), dtype=np.float32)
    scaled = np.stack([_resize_pillow(channel, height, width) for channel in channels], axis=2)
    if image.dtype == np.float32:
        return scaled.clip(image.min(), image.max())
    return np.rint(scaled).clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def _resize_pillow(array: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize((width, height), Image.Resampling.BICUBIC))
