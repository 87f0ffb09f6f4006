"""The generator for other runtimes: from noise (and labels) to images."""

from torch import Tensor

from dcgan.model import Sampler
from ganvas.inference.export.program import Exportable

EXAMPLE_SIZE = 3  # images to trace the network with; the exporter would take 1 for a constant
MIN_COMPARED = 64  # images, and at least one of each class
LATENTS = {"normal": "N(0, 1)", "uniform": "U(-1, 1)"}
VALUE_RANGES = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0)}  # of black and white


def exportable(sampler: Sampler) -> Exportable:
    """Describe a generator on the CPU for export.

    Inputs are "latents" [N, latent_dim] float32 and, if the model has classes, "labels" [N] int64; the output is
    "pictures" [N, C, S, S] float32. The metadata contain the distribution of the noise, the values of black and white,
    and the class names.
    """
    config = sampler.config
    return Exportable(
        network=sampler.generator,
        inputs={"latents": (0,), "labels": (0,)} if config.num_classes else {"latents": (0,)},
        output="pictures",
        example=_inputs(sampler, EXAMPLE_SIZE),
        random=[_inputs(sampler, count) for count in (1, 2, max(MIN_COMPARED, config.num_classes))],
        real=[],  # there is no other input than noise
        metadata={
            "kind": config.kind,
            "latent": LATENTS[config.latent],
            "latent_dim": config.latent_dim,
            "value_range": VALUE_RANGES[config.pixel_range],
            "classes": config.classes if config.num_classes else (),
        },
    )


def _inputs(sampler: Sampler, count: int) -> tuple[Tensor, ...]:
    labels = sampler.cycled_labels(count)
    latents = sampler.latents(count, seed=count)
    return (latents,) if labels is None else (latents, labels)
