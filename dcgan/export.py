"""What the command export does: the generator for other runtimes, from noise (and labels) to images."""

from typing import TYPE_CHECKING

from torch import Tensor

from dcgan.model import Sampler, load_sampler
from ganvas.cli.convert import print_export
from ganvas.inference.export.program import Exportable, export, summary

if TYPE_CHECKING:
    from dcgan.__main__ import Export

EXAMPLE = 3  # images that the network is traced with: the exporter would take 1 for a fixed number
COMPARED = 64  # images at least, and of each class one
LATENTS = {"normal": "N(0, 1)", "uniform": "U(-1, 1)"}
VALUES = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0)}  # of black and white


def run_export(options: "Export") -> int:
    """Write an ONNX file or a torch.export program; give the exit code.

    Raises:
        UserError: No model, a suffix that is not known, or what is written computes something else.
    """
    found = export(exportable(load_sampler(options.model)), options.out)
    print_export(summary(options.out, found), as_json=options.json)
    return 0


def exportable(sampler: Sampler) -> Exportable:
    """Describe a generator on the CPU: "latents" [N, latent_dim] float32, and "labels" [N] int64 where it has classes,
    to "images" [N, C, S, S] float32.

    The metadata tell how the noise is distributed, which values are black and white, and the classes by number.
    """
    config = sampler.config
    return Exportable(
        network=sampler.generator,
        inputs={"latents": (0,), "labels": (0,)} if config.num_classes else {"latents": (0,)},
        output="pictures",
        example=_inputs(sampler, EXAMPLE),
        random=[_inputs(sampler, count) for count in (1, 2, max(COMPARED, config.num_classes))],
        real=[],  # noise is all that it is ever given
        metadata={
            "kind": config.kind,
            "latent": LATENTS[config.latent],
            "latent_dim": config.latent_dim,
            "value_range": VALUES[config.pixel_range],
            "classes": config.classes if config.num_classes else (),
        },
    )


def _inputs(sampler: Sampler, count: int) -> tuple[Tensor, ...]:
    labels = sampler.turns(count)
    latents = sampler.latents(count, seed=count)
    return (latents,) if labels is None else (latents, labels)
