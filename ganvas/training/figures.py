"""Figures of fixed images and of weights, by which `ganvas.training.monitors` sees failures that losses do not show."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def diversity(images: Tensor, real: Tensor) -> float:
    """Return the mean squared distance between two images of one set, over that of another set.

    The mean over all pairs is twice the total variance, so that no pair has to be formed.

    Args:
        images: Generated ones, [N, C, H, W], N > 1.
        real: Real ones in the same range, [M, C, H, W], M > 1.

    Returns:
        1 if both differ alike, 0 if all generated images are the same.
    """
    spread, wanted = (float(each.flatten(1).double().var(dim=0).sum()) for each in (images, real))
    return spread / wanted if wanted else 1.0


def correlation(first: Tensor, second: Tensor) -> float:
    """Return the mean over images of the correlation of their luminances, in [-1, 1]; 0 for flat images.

    Args:
        first: [N, C, H, W].
        second: [N, C', H, W].
    """
    x, y = (each.double().mean(dim=1).flatten(1) for each in (first, second))  # [N, H * W]
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    norms = x.norm(dim=1) * y.norm(dim=1)
    products = (x * y).sum(dim=1)
    return float(torch.where(norms > 1e-9, products / norms.clamp(min=1e-9), 0.0).mean())


def translation_figures(
    direction: str, source: Tensor, fake: Tensor, target: Tensor, identity: Tensor | None = None
) -> dict[str, float]:
    """Return figures of a direction's fixed images, [N, C, H, W] in [-1, 1], for the checks.

    Args:
        direction: "a2b" or "b2a", which ends the figures' names.
        source: Source images.
        fake: Their translations.
        target: Images of the target domain.
        identity: Those after the generator of this direction, if it takes them.
    """
    figures = {"correlation_source": correlation(fake, source)}
    if min(len(fake), len(target)) > 1:
        figures["diversity"] = diversity(fake, target)
    if identity is not None:
        figures["correlation_identity"] = correlation(identity, target)
    if fake.shape == source.shape:
        figures["change"] = float((fake - source).abs().mean())
    return {f"{name}_{direction}": value for name, value in figures.items()}


@torch.no_grad()
def weight_norms(networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Return the norm of all weights of each network, by the name weights_NAME."""
    found = {}
    for name, network in networks.items():
        if weights := list(network.parameters()):
            # Sums of float32 would hide how little a generator moves. Apple's GPU has no more.
            dtype = torch.float32 if weights[0].device.type == "mps" else torch.float64
            norms = [torch.linalg.vector_norm(each, dtype=dtype) for each in weights]
            found[f"weights_{name}"] = float(torch.linalg.vector_norm(torch.stack(norms)))
    return found
