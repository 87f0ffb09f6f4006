"""How metrics are shown in tables and reports. Free of torch, since a report needs no network."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MetricLabel:
    """How a metric is shown.

    Attributes:
        text: Its name, with its unit.
        better: Which values are better; "" where neither is.
        decimals: Digits after the point.
    """

    text: str
    better: Literal["lower", "higher", ""] = ""
    decimals: int = 4


PAIRED_LABELS = {
    "l1": MetricLabel("L1", "lower"),
    "psnr": MetricLabel("PSNR, dB", "higher", 2),
    "ssim": MetricLabel("SSIM", "higher"),
    "ms_ssim": MetricLabel("MS-SSIM", "higher"),
    "lpips": MetricLabel("LPIPS", "lower"),
    "sliced_wasserstein": MetricLabel("Sliced Wasserstein distance", "lower"),
    "fid": MetricLabel("FID", "lower", 2),
    "kid": MetricLabel("KID", "lower", 5),
    "sharpness": MetricLabel("Sharpness, 1 as the truth", "", 3),
    "spectrum": MetricLabel("Energy of the finest two octaves, 1 as the truth", "", 3),
}
