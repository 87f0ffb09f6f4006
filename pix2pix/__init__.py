"""pix2pix: image translation learned from pairs (Isola et al. 2017).

Trains a U-Net generator with a PatchGAN discriminator, with GAN and L1 loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganvas.evaluation.names import DEFAULT, metric_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ganvas.training.run import TrainResult

__all__ = ["evaluate", "resume", "train"]


def train(
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    preset: Literal["paper", "best", "demo"] | None = None,
    callbacks: Sequence[object] = (),
    generator: nn.Module | Literal["unet", "resunet"] | None = None,
    discriminator: nn.Module | None = None,
    losses: Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a translator from pairs of images.

    Args:
        data: Dataset of pairs, as `pix2pix train --data` takes it.
        out: Folder of the run, which must not hold one yet.
        preset: Defaults of a named use.
        callbacks: Objects with some of the methods of `ganvas.training.callbacks`.
        generator: "unet" or "resunet", as of `pix2pix train`; or your own, [N, C_in, H, W] in [-1, 1] to
            [N, C_out, H, W] in [-1, 1].
        discriminator: Your own in place of the PatchGAN: [N, C_in + C_out, H, W] to scores of any shape.
        losses: Further terms of the generator's loss by name: a weight, and a function of source, output and target
            ([N, C, H, W] in [-1, 1] each) that returns a scalar.
        options: Any option of `pix2pix train`, such as ``steps=500``, and all fields of `pix2pix.config`.

    Returns:
        The run's folder, metrics and model.

    Raises:
        ganvas.UserError: Bad data or options, a folder that cannot be written, a training that diverged.
        TypeError: There is no such option.

    Example:
        ```python
        result = pix2pix.train("datasets/earth", out="runs/earth", preset="demo", steps=500)
        terrain = result.model.translate(image)
        ```
    """
    from ganvas.training.config import with_options
    from pix2pix.config import preset as preset_config
    from pix2pix.trainer import train_pix2pix

    if isinstance(generator, str):
        options["generator"], generator = generator, None
    return train_pix2pix(
        with_options(preset_config(preset), {"data": Path(data), **options}),
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
        pix2pix.resume("runs/earth", steps=1000)
        ```
    """
    from ganvas.training.config import resumed_config
    from pix2pix.config import Pix2PixConfig
    from pix2pix.trainer import train_pix2pix

    return train_pix2pix(
        resumed_config(Path(run), "pix2pix", Pix2PixConfig, options),
        Path(run),
        resume=True,
        callbacks=callbacks,
        generator=generator,
        discriminator=discriminator,
        losses=losses,
    )


def evaluate(
    model: str | PathLike[str],
    data: str | PathLike[str],
    *,
    split: Literal["train", "val", "test"] = "test",
    metrics: str | Sequence[str] = DEFAULT,
    feature_weights: str | PathLike[str] | None = None,
    lpips_weights: str | PathLike[str] | None = None,
    kid_subset_size: int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    generator: nn.Module | None = None,
) -> dict[str, Any]:
    """Score a model on a dataset, one image at a time.

    Args:
        model: A run, a checkpoint or a model folder.
        data: The dataset's folder.
        split: Which of its splits.
        metrics: Names of metrics, as ``["l1", "fid"]`` or ``"l1,fid"``.
        feature_weights: TorchScript network for FID and KID instead of Inception v3. TorchScript can run code: name
            only files that you trust.
        lpips_weights: TorchScript network for LPIPS instead of AlexNet; the same holds.
        kid_subset_size: Images in each of KID's subsets; by default 1000, or all if there are fewer.
        device: Where to compute.
        generator: For a model that was trained with your own generator: an instance of its class.

    Returns:
        What ``pix2pix evaluate --json`` prints.

    Raises:
        ganvas.UserError: There is no model or no data, an image cannot be read, a metric is unknown, or its network
            cannot be loaded.

    Example:
        ```python
        pix2pix.evaluate("runs/earth", data="datasets/earth")["metrics"]["l1"]["mean"]
        ```
    """
    from pix2pix.evaluation import evaluate as evaluate_model

    chosen = metric_options(
        metrics, feature_weights=feature_weights, lpips_weights=lpips_weights, kid_subset_size=kid_subset_size
    )
    return evaluate_model(Path(model), data=Path(data), split=split, metrics=chosen, device=device, generator=generator)
