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
    """

    names: tuple[str, ...] = DEFAULT
    feature_weights: Path | None = None
    lpips_weights: Path | None = None
    kid_subset_size: int | None = None


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
    option: str = "--metrics",
) -> MetricOptions:
    """Read names of metrics with the options that belong to them.

    Raises:
        UserError: A name is unknown, or an option belongs to a metric that is not named.
    """
    names = parse_names(option, metrics, allowed)
    given = (
        ("--feature-weights", feature_weights, OF_FEATURES),
        ("--lpips-weights", lpips_weights, ("lpips",)),
        ("--kid-subset-size", kid_subset_size, ("kid",)),
    )
    for other, value, needed_by in given:
        if value is not None and not set(names) & set(needed_by):
            one = " or ".join(needed_by)
            raise UserError(
                f"{other} {value}: none of {option} {','.join(names)} needs it. Add {one}, or leave it out."
            )
    if kid_subset_size is not None and kid_subset_size < 2:
        raise UserError(f"--kid-subset-size is {kid_subset_size}; a subset needs at least 2 images.")
    features, lpips = (None if path is None else Path(path) for path in (feature_weights, lpips_weights))
    return MetricOptions(names, features, lpips, kid_subset_size)


def require_criteria(names: Sequence[str]) -> None:
    """Check that metrics can choose the best model of a training.

    Raises:
        UserError: They would choose a blurred model, or one whose detail is in the wrong places.
    """
    for group in NOT_ALONE:
        if set(names) <= set(group):
            why = "keeps the most blurred model" if "l1" in group else "ignores where the detail is"
            raise UserError(
                f"--save-best-by {','.join(names)}: {' and '.join(group)} alone {why}. Add a metric of another kind, "
                f"as in --save-best-by {names[0]},swd."
            )
