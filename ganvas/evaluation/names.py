"""Names of metrics, as ``--metrics`` and ``--save-best-by`` take them. Free of torch: a typo is found at once."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from ganvas.errors import UserError
from ganvas.messages import quote

# By name: the key in results. Metrics of pairs compare each image with its own target, those of sets two sets.
PAIRED = {"l1": "l1", "psnr": "psnr", "ssim": "ssim", "ms-ssim": "ms_ssim", "lpips": "lpips"}
OF_SETS = {
    "swd": "sliced_wasserstein",
    "fid": "fid",
    "kid": "kid",
    "sharpness": "sharpness",
    "spectrum": "spectrum",
}
KEYS = PAIRED | OF_SETS
OF_FEATURES = ("fid", "kid")
OF_DETAIL = ("sharpness", "spectrum")
DEFAULT = ("l1", "psnr", "ssim", "swd", "sharpness", "spectrum")

# Alone, these choose a bad model: the most blurred one, or one with the right amount of detail in the wrong places.
NOT_ALONE = (("l1", "psnr"), OF_DETAIL)


@dataclass(frozen=True)
class MetricOptions:
    """Which metrics are computed, and with which networks.

    Attributes:
        names: Names of metrics, a subset of `KEYS`.
        feature_weights: TorchScript network that FID and KID use instead of Inception v3.
        lpips_weights: TorchScript network that LPIPS uses instead of the published one.
        kid_subset_size: Images in each of KID's subsets; by default 1000, or all if there are fewer.
        are_flags: Whether the command line takes the files, for messages: ``train`` takes them from Python alone.
    """

    names: tuple[str, ...] = DEFAULT
    feature_weights: Path | None = None
    lpips_weights: Path | None = None
    kid_subset_size: int | None = None
    are_flags: bool = True

    def option(self, name: str) -> str:
        """Return the option of a field as its user gives it."""
        return "--" + name.replace("_", "-") if self.are_flags else name


def parse_names(option: str, text: str | Sequence[str], allowed: Collection[str] = tuple(KEYS)) -> tuple[str, ...]:
    """Read names of metrics.

    Args:
        option: Where they were given, for messages.
        text: Names, or a text of names with commas between them.
        allowed: Those that fit.

    Returns:
        The names in the order given, each once.

    Raises:
        UserError: There is none, or one is unknown or not allowed.
    """
    words = text.split(",") if isinstance(text, str) else text
    names = tuple(dict.fromkeys(word.strip().lower().replace("_", "-") for word in words if word.strip()))
    if not names:
        raise UserError(f"{option} is empty. Name at least one of {', '.join(allowed)}.")
    for name in names:
        if name not in KEYS:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UserError(f"{option}: there is no metric {quote(name)}. {hint}Metrics: {', '.join(allowed)}.")
        if name not in allowed:
            raise UserError(
                f"{option} {name}: compares an image with its own target, and these images have none. "
                f"Metrics of such images: {', '.join(allowed)}."
            )
    return names


def metric_options(
    metrics: str | Sequence[str],
    *,
    allowed: Collection[str] = tuple(KEYS),
    feature_weights: str | PathLike[str] | None = None,
    lpips_weights: str | PathLike[str] | None = None,
    kid_subset_size: int | None = None,
) -> MetricOptions:
    """Read the options of an evaluation: names of metrics, and what belongs to them.

    Args:
        metrics: The names.
        allowed: Metrics that the images allow.
        feature_weights: As in `MetricOptions`, and so are the others.
        lpips_weights: As in `MetricOptions`.
        kid_subset_size: As in `MetricOptions`.

    Raises:
        UserError: A name is unknown, or an option belongs to a metric that is not named.
    """
    features, lpips = (None if path is None else Path(path) for path in (feature_weights, lpips_weights))
    options = MetricOptions(parse_names("--metrics", metrics, allowed), features, lpips, kid_subset_size)
    _require_used(options, "--metrics")
    if kid_subset_size is not None and kid_subset_size < 2:
        raise UserError(f"--kid-subset-size is {kid_subset_size}; a subset needs at least 2 images.")
    return options


def further_metrics(
    metrics: str | Sequence[str] | None, feature_weights: str | PathLike[str] | None
) -> MetricOptions | None:
    """Read metrics of sets that an evaluation computes next to its own; None where none are asked for.

    Raises:
        UserError: As `metric_options`.
    """
    if metrics is not None:
        return metric_options(metrics, allowed=tuple(OF_SETS), feature_weights=feature_weights)
    if feature_weights is not None:
        raise UserError(f"--feature-weights {feature_weights}: no metric needs it. Add --metrics fid,kid.")
    return None


def criterion_options(
    save_best_by: str,
    *,
    allowed: Collection[str] = tuple(KEYS),
    feature_weights: Path | None = None,
    lpips_weights: Path | None = None,
) -> MetricOptions:
    """Read the options of a training's validation: names of the metrics that choose the best model, and their files.

    Args:
        save_best_by: The names.
        allowed: Metrics that the images allow.
        feature_weights: As in `MetricOptions`.
        lpips_weights: As in `MetricOptions`.

    Raises:
        UserError: A name is unknown or not allowed, a file belongs to a metric that is not named, or the metrics would
            choose a bad model.
    """
    names = parse_names("--save-best-by", save_best_by, allowed)
    require_criteria(names)
    options = MetricOptions(names, feature_weights, lpips_weights, are_flags=False)
    _require_used(options, "--save-best-by")
    return options


def _require_used(options: MetricOptions, where: str) -> None:
    for field, needed_by in (
        ("feature_weights", OF_FEATURES),
        ("lpips_weights", ("lpips",)),
        ("kid_subset_size", ("kid",)),
    ):
        value = getattr(options, field)
        if value is not None and not set(options.names) & set(needed_by):
            raise UserError(
                f"{options.option(field)} {value}: none of {where} {','.join(options.names)} needs it. "
                f"Add {' or '.join(needed_by)}, or leave it out."
            )


def require_criteria(names: Sequence[str]) -> None:
    """Check that metrics can choose the best model of a training.

    Raises:
        UserError: They would choose a blurred model, or one whose detail is in the wrong places.
    """
    for group in NOT_ALONE:
        if set(names) <= set(group):
            why = "keep the most blurred model" if "l1" in group else "ignore where the detail is"
            raise UserError(
                f"--save-best-by {','.join(names)}: {' and '.join(group)} alone {why}. Add a metric of another kind, "
                f"as in --save-best-by {names[0]},swd."
            )
