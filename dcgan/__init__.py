"""dcgan: digits and other small images from noise (Goodfellow et al. 2014, Radford et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganvas.evaluation.names import further_metrics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dcgan.config import Preset
    from dcgan.model import Sampler
    from ganvas.training.run import TrainResult

__all__ = ["evaluate", "load", "resume", "train"]


def train(
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    preset: Preset | None = None,
    callbacks: Sequence[object] = (),
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    losses: Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a generator of digits or other small images.

    Args:
        data: "mnist", "fashion-mnist", "mnist5k" or a folder of images, as `dcgan train --data` takes it.
        out: Folder of the run, which must not hold one yet.
        preset: Networks and training of a tutorial, or ours ("dcgan", the default).
        callbacks: Objects with some of the methods of `ganvas.training.callbacks`.
        generator: Your own in place of the preset's: z [N, latent_dim] and labels [N] (None without labels) to
            [N, C, S, S] in [-1, 1].
        discriminator: Your own in place of the preset's: images [N, C, S, S] and labels to logits [N].
        losses: Further terms of the generator's loss by name: a weight, and a function of noise, output and real images
            ([N, C, S, S] in [-1, 1]) that returns a scalar.
        options: Any option of `dcgan train`, such as ``steps=500``, and all fields of `dcgan.config`.

    Returns:
        The run's folder, metrics and model.

    Raises:
        ganvas.UserError: Bad data or options, a folder that cannot be written, a training that diverged.
        TypeError: There is no such option.

    Example:
        ```python
        result = dcgan.train("mnist5k", out="runs/digits", epochs=3)
        digits = result.model.sample(10, seed=0)
        ```
    """
    from dcgan.config import preset as preset_config
    from dcgan.trainer import train_dcgan
    from ganvas.training.config import with_options

    return train_dcgan(
        with_options(preset_config(preset), {"data": str(data), **options}),
        Path(out),
        resume=False,
        callbacks=callbacks,
        generator=generator,
        discriminator=discriminator,
        losses=losses,
    )


def resume(
    run: str | PathLike[str],
    *,
    callbacks: Sequence[object] = (),
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    losses: Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]] | None = None,
    **options: Any,
) -> TrainResult:
    """Continue a training from its newest checkpoint; on a CPU the result is that of a run which never stopped.

    Args:
        run: The run's folder.
        callbacks: As in `train`, and so are the others. Give the same networks and losses as before.
        options: Length, logging and hardware options, and the place of the data.

    Raises:
        ganvas.UserError: There is no run, or an option that a resumed run cannot change.

    Example:
        ```python
        dcgan.resume("runs/digits", steps=1000)
        ```
    """
    from dcgan.config import DcganConfig
    from dcgan.trainer import train_dcgan
    from ganvas.training.config import resumed_config

    if "data" in options:
        options["data"] = str(options["data"])
    return train_dcgan(
        resumed_config(Path(run), "dcgan", DcganConfig, options),
        Path(run),
        resume=True,
        callbacks=callbacks,
        generator=generator,
        discriminator=discriminator,
        losses=losses,
    )


def load(path: str | PathLike[str], *, device: str = "cpu", generator: nn.Module | None = None) -> Sampler:
    """Load a trained model, which draws images.

    Args:
        path: A run (its best model), a checkpoint or a model folder.
        device: Where to draw: "cpu", "cuda" or "mps".
        generator: For a model that was trained with your own generator: an instance of its class.

    Raises:
        ganvas.UserError: There is no model, or it is damaged.

    Example:
        ```python
        images = dcgan.load("runs/digits").sample(10, seed=0)
        ```
    """
    from dcgan.model import load_sampler

    return load_sampler(Path(path), device, generator)


def evaluate(
    model: str | PathLike[str],
    data: str | PathLike[str] | None = None,
    *,
    data_root: str | PathLike[str] | None = None,
    samples: int = 10_000,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    compare: str | PathLike[str] | None = None,
    metrics: str | Sequence[str] | None = None,
    feature_weights: str | PathLike[str] | None = None,
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Draw images with a model and measure them, alongside real test images.

    Args:
        model: A run, a checkpoint or a model folder.
        data: The data to compare with; by default what the model learned from.
        data_root: Folder of mnist and fashion-mnist, which are downloaded if missing; by default that of the training,
            else $GANVAS_DATA, else "datasets".
        samples: Images to draw.
        seed: Seed of the noise.
        device: Where to compute.
        compare: An evaluation.json of another model, or its run; both must have been measured with the same classifier.
        metrics: Names of further metrics: swd, fid, kid, sharpness, spectrum.
        feature_weights: TorchScript network for FID and KID instead of Inception v3. TorchScript can run code: name
            only files that you trust.
        generator: For a model that was trained with your own generator: an instance of its class.

    Returns:
        What ``dcgan evaluate --json`` prints.

    Raises:
        ganvas.UserError: There is no model, the data is missing, too small or without labels, or the other evaluation
            is not comparable.

    Example:
        ```python
        dcgan.evaluate("runs/digits")["metrics"]["frechet_distance"]["mean"]
        ```
    """
    from dcgan.evaluation import evaluate as evaluate_model

    return evaluate_model(
        Path(model),
        None if data is None else str(data),
        data_root=None if data_root is None else Path(data_root),
        samples=samples,
        seed=seed,
        device=device,
        compare=None if compare is None else Path(compare),
        metrics=further_metrics(metrics, feature_weights),
        generator=generator,
    )
