"""cyclegan: image translation learned without pairs.

Trains two generators and two discriminators with GAN, cycle and identity losses (CycleGAN, Zhu et al. 2017), or one of
each with GAN and PatchNCE losses (CUT and FastCUT, Park et al. 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ganvas.errors import UserError
from ganvas.evaluation.names import DEFAULT, metric_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cyclegan.config import CycleGanConfig
    from ganvas.training.run import TrainResult

__all__ = ["evaluate", "resume", "train"]


def train(
    data: str | PathLike[str],
    out: str | PathLike[str],
    *,
    preset: Literal["paper", "cut", "fastcut", "fast", "earth64"] | None = None,
    callbacks: Sequence[object] = (),
    generator: nn.Module | tuple[nn.Module, nn.Module] | Literal["resnet", "unet"] | None = None,
    discriminator: nn.Module | tuple[nn.Module, nn.Module] | None = None,
    losses: Mapping[str, tuple[float, Callable[[Tensor, Tensor, Tensor], Tensor]]] | None = None,
    **options: Any,
) -> TrainResult:
    """Train translators of both directions between two domains; of one with ``objective="cut"`` or "fastcut".

    Args:
        data: Dataset of two domains, as `cyclegan train --data` takes it.
        out: Folder of the run, which must not hold one yet.
        preset: Defaults of a named use; without one, an ``objective`` comes with those of its name.
        callbacks: Objects with some of the methods of `ganvas.training.callbacks`.
        generator: "resnet" or "unet", as of `cyclegan train`. With ``objective="cycle"`` also your own, copied for the
            other direction; or a pair, G_ab and G_ba: [N, C_a, H, W] in [-1, 1] to [N, C_b, H, W] in [-1, 1], and the
            reverse. The other objectives need "resnet".
        discriminator: Your own instead of the PatchGAN, [N, C, H, W] to scores of any shape. With ``objective="cycle"``
            it is copied for the other domain, or a pair, D_a and D_b; the other objectives need one.
        losses: Further terms of the generators' loss by name: a weight, and a function of source, output and an image
            of the target domain ([N, C, H, W] in [-1, 1] each) that returns a scalar.
        options: Any option of `cyclegan train`, such as ``steps=500``, and all fields of `cyclegan.config`.

    Returns:
        The run's folder, metrics and model.

    Raises:
        ganvas.UserError: Bad data or options, a folder that cannot be written, a training that diverged.
        TypeError: There is no such option.

    Example:
        ```python
        result = cyclegan.train("datasets/horse2zebra", out="runs/zebra", epochs=20)
        zebra = result.model.translate(horse)
        ```
    """
    from cyclegan.config import defaults
    from cyclegan.trainer import train_cyclegan
    from ganvas.training.config import with_options

    if isinstance(generator, str):
        options["generator"], generator = generator, None
    default = defaults(preset, options.get("objective"))
    config = with_options(default, {"data": Path(data), **options})
    _check_discriminator(config, discriminator)
    return train_cyclegan(
        config,
        Path(out),
        resume=False,
        callbacks=callbacks,
        generators=_pair(generator),
        discriminators=_pair(discriminator),
        losses=losses,
    )


def resume(
    run: str | PathLike[str],
    *,
    callbacks: Sequence[object] = (),
    generator: nn.Module | tuple[nn.Module, nn.Module] | None = None,
    discriminator: nn.Module | tuple[nn.Module, nn.Module] | None = None,
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
        cyclegan.resume("runs/zebra", steps=1000)
        ```
    """
    from cyclegan.config import CycleGanConfig
    from cyclegan.trainer import train_cyclegan
    from ganvas.training.config import resumed_config

    config = resumed_config(Path(run), "cyclegan", CycleGanConfig, options)
    _check_discriminator(config, discriminator)
    return train_cyclegan(
        config,
        Path(run),
        resume=True,
        callbacks=callbacks,
        generators=_pair(generator),
        discriminators=_pair(discriminator),
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
        What ``cyclegan evaluate --json`` prints.

    Raises:
        ganvas.UserError: There is no model or no data, an image cannot be read, a metric is unknown, or its network
            cannot be loaded.

    Example:
        ```python
        cyclegan.evaluate("runs/zebra", data="datasets/horse2zebra")["metrics"]
        ```
    """
    from cyclegan.evaluation import evaluate as evaluate_model

    chosen = metric_options(
        metrics, feature_weights=feature_weights, lpips_weights=lpips_weights, kid_subset_size=kid_subset_size
    )
    return evaluate_model(Path(model), data=Path(data), split=split, metrics=chosen, device=device, generator=generator)


def _check_discriminator(config: CycleGanConfig, discriminator: nn.Module | tuple[nn.Module, nn.Module] | None) -> None:
    """Check that there are as many discriminators as the objective trains.

    Raises:
        UserError: There is a pair for one direction.
    """
    from torch import nn

    objective = config.model.objective
    if objective != "cycle" and discriminator is not None and not isinstance(discriminator, nn.Module):
        raise UserError(
            f"discriminator is a pair, and objective {objective} trains one: that of the target domain. Pass that one "
            "alone."
        )


def _pair(networks: nn.Module | tuple[nn.Module, nn.Module] | None) -> tuple[nn.Module, nn.Module] | None:
    """Return networks for both directions; one network is copied."""
    from torch import nn

    return (networks, copy.deepcopy(networks)) if isinstance(networks, nn.Module) else networks
