"""The metrics of an evaluation or a validation, with the networks that they need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ganvas.errors import UserError
from ganvas.evaluation.feature_networks import FEATURE_SIZE, FeatureNetwork, PairNetwork
from ganvas.evaluation.metrics import MS_SSIM_SMALLEST, PAIRED_METRICS
from ganvas.evaluation.names import DEFAULT, OF_FEATURES, PAIRED, MetricOptions
from ganvas.evaluation.weights import load_feature_network, load_lpips

KID_SUBSETS = 100  # Bińkowski et al. 2018 and clean-fid
KID_SUBSET_SIZE = 1000
FEWEST_FOR_FID = 2048  # images: fewer than the dimensions of Inception's features leave the covariance singular
LPIPS_SMALLEST = 31  # pixels a side: smaller images vanish in AlexNet's pooling

PairMetric = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MetricSet:
    """Metrics by name, ready to be computed.

    Attributes:
        names: As ``--metrics`` takes them.
        features: For FID and KID; None where neither is asked for.
        lpips: For LPIPS; None where it is not asked for.
        kid_subset_size: Images in each of KID's subsets; None for as many as there are, up to 1000.
    """

    names: tuple[str, ...] = DEFAULT
    features: FeatureNetwork | None = None
    lpips: PairNetwork | None = None
    kid_subset_size: int | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.names

    @property
    def of_pairs(self) -> dict[str, PairMetric]:
        """The metrics of an image [1, C, H, W] and its target, by their key in results."""
        functions: dict[str, PairMetric] = dict(PAIRED_METRICS)
        if self.lpips is not None:
            functions["lpips"] = self.lpips
        return {key: functions[key] for name, key in PAIRED.items() if name in self}

    def without_networks(self) -> "MetricSet":
        """Return the metrics that need no network."""
        return MetricSet(tuple(name for name in self.names if name not in (*OF_FEATURES, "lpips")))

    def subset_size(self, count: int) -> int:
        """Return the size of KID's subsets of two sets, the smaller one of ``count`` images."""
        return min(self.kid_subset_size or KID_SUBSET_SIZE, count)

    def require_count(self, count: int, where: str) -> None:
        """Check that there are enough images.

        Args:
            count: Images of the smaller set.
            where: Where they are, for the message.

        Raises:
            UserError: There are fewer than a metric needs.
        """
        for name in OF_FEATURES:
            if name in self and count < 2:
                raise UserError(f"{where}: has {count} image; {name} compares sets of 2 images or more.")
        if "kid" in self and self.kid_subset_size is not None and self.kid_subset_size > count:
            raise UserError(
                f"--kid-subset-size {self.kid_subset_size}: {where} has only {count} images. Use at most {count}."
            )

    def require_image(self, image: Tensor, where: str) -> None:
        """Check that an image [C, H, W] suits all metrics.

        Raises:
            UserError: It has too few pixels, or channels that a network does not take.
        """
        H, W = image.shape[1:]
        smallest = {"ms-ssim": MS_SSIM_SMALLEST, "lpips": LPIPS_SMALLEST}
        for name, side in smallest.items():
            if name in self and min(H, W) < side:
                raise UserError(f"{where}: is {W}x{H} pixels; {name} needs {side} pixels a side. Leave {name} out.")
        self.require_channels(image, where)

    def require_channels(self, image: Tensor, where: str) -> None:
        """Check that the networks take an image [C, H, W].

        Raises:
            UserError: It is neither gray nor of three channels.
        """
        for name in ("lpips", *OF_FEATURES):
            if name in self and len(image) not in (1, 3):
                raise UserError(
                    f"{where}: has {len(image)} channels; the network of {name} takes 1 or 3. Leave {name} out."
                )

    def protocol(self, outputs: int, targets: int) -> dict[str, Any]:
        """Return how the metrics that need networks are computed, for results.

        Args:
            outputs: Generated images.
            targets: True images.
        """
        parts: dict[str, Any] = {}
        if self.features is not None:
            parts["features"] = {
                "network": self.features.name,
                "sha256": self.features.digest,
                "dimensions": self.features.dimensions,
                "resize": f"{FEATURE_SIZE}x{FEATURE_SIZE}, bicubic with antialiasing (Pillow)",
                "range": "0 to 255, 8 bits before and after the resize",
            }
        if "kid" in self:
            size = self.subset_size(min(outputs, targets))
            subsets = 1 if size == outputs == targets else KID_SUBSETS
            parts["kid"] = {"estimator": "unbiased", "subset_size": size, "subsets": subsets}
        if self.lpips is not None:
            parts["lpips"] = {
                "network": self.lpips.name,
                "sha256": self.lpips.digest,
                "resize": "none",
                "range": "-1 to 1",
            }
        return parts


def load_metrics(options: MetricOptions, device: str) -> MetricSet:
    """Load the networks that metrics need.

    Args:
        options: The metrics and their files.
        device: Where the networks compute.

    Raises:
        UserError: A network cannot be loaded.
    """
    names, features, lpips = options.names, None, None
    if set(names) & set(OF_FEATURES):
        features = load_feature_network(options.feature_weights, device, options.option("feature_weights"))
    if "lpips" in names:
        lpips = load_lpips(options.lpips_weights, device, options.option("lpips_weights"))
    return MetricSet(names, features, lpips, options.kid_subset_size)
