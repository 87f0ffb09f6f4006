"""Monitors of a training: cheap figures that show a failure while there is time to act, with plain advice.

A GAN's losses do not tell whether it works: they stay finite while the generator draws one image over and over. Each
check is a pure function on the recent history of the losses, the validation metrics and the figures of fixed images;
a model chooses its checks. Thresholds are our choice, from recorded runs (tests/ganvas/training/curves).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch

from ganvas.losses import GanLoss, gan_loss_d, lowest_gan_loss_d, real_threshold

Curve = Sequence[Sequence[float]]  # [step, value] each, in the order of the steps
History = Mapping[str, Curve]  # by name
Check = Callable[[History], str | None]  # returns what is wrong and what helps; None if nothing is

POINTS = 100  # of each curve that are kept: 5,000 steps at the default interval
IN_A_ROW = 2  # points before a warning
WARM_UP = 300  # steps whose figures do not count: every generator draws nearly one image at first
# A discriminator has won when this little is left of the way from its loss when it guesses to that of a perfect one.
# With the vanilla loss that is a confidence of 99%. Being right is not enough: digits go on improving against a
# discriminator that nearly always is.
WON = 0.01
# G's weights change by this share of D's at most, between as many points; it is about 1 in healthy runs, and 1e-4 with
# a learning rate that is a hundredth of D's.
FROZEN, FROZEN_POINTS = 3e-5, 3
COLLAPSED = 0.5  # spread over the real one; MNIST's ones alone have 0.42, digits of ours above 0.65 when they count
# Good translations have 0.5 to 0.75, those of small networks after 100 steps 0.12; if all are alike it is 0.
COLLAPSED_TRANSLATIONS = 0.05
RECOVERED = 1.2  # times that limit
UNTOUCHED = 0.02  # mean difference in [-1, 1] below which a translation is its source: two and a half of 255 grays
# Held-out images have not become better for so many validations, and are so many times worse than training images,
# whose loss falls by this share. Good runs have 1.1 to 1.3 times, 600 steps with eight pairs 2.
OVERFIT_VALIDATIONS, OVERFIT_GAP, OVERFIT_FALL = 3, 1.5, 0.05
LEVEL_POINTS, LEVEL = 40, 0.02  # the means of the two halves of so many points differ by less than this share


@dataclass(frozen=True)
class HealthReport:
    """What the checks of a training found.

    Attributes:
        values: Figures for the records.
        warnings: What is wrong and what helps, a line each.
        notes: Advice that is not about a failure, a line each.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


class Monitor:
    """Keeps the recent history of a training, and reports each finding once; again only after it was gone.

    Args:
        checks: Checks by the name of what they find.
        advisory: Names of findings that are no failures.
        views: Returns figures of fixed images that are drawn afresh.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        advisory: Iterable[str] = (),
        views: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._checks, self._advisory, self._views = checks, set(advisory), views
        self._history: dict[str, list[list[float]]] = {}
        self._found: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what the next check depends on, as JSON values."""
        return {"history": {name: list(curve) for name, curve in self._history.items()}, "found": self._found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._history = {name: list(curve) for name, curve in state["history"].items()}
        self._found = list(state["found"])

    def check(self, step: int, values: Mapping[str, float], *, with_images: bool = False) -> HealthReport:
        """Add values to the history, with the figures of fixed images if wanted, and run all checks."""
        figures = self._views() if with_images else {}
        for name, value in {**values, **(figures if step > WARM_UP else {})}.items():
            if math.isfinite(value):
                self._history[name] = [*self._history.get(name, []), [step, value]][-POINTS:]
        found = {name: text for name, check in self._checks.items() if (text := check(self._history)) is not None}
        new = {name: text for name, text in found.items() if name not in self._found}
        gone = [f"No longer found: {name}." for name in self._found if name not in found]
        self._found = list(found)
        advice = [text for name, text in new.items() if name in self._advisory]
        return HealthReport(figures, [text for name, text in new.items() if name not in self._advisory], advice + gone)


def find_non_finite(values: Mapping[str, float]) -> list[str]:
    """Return the names of values that are not finite: the training cannot continue."""
    return [name for name, value in values.items() if not math.isfinite(value)]


def won_loss(gan_loss: GanLoss, *, label_smoothing: float = 0.0, halved: bool = False) -> float:
    """Return the value of loss_d below which the discriminator has won; -inf with "wgangp", whose loss has no end.

    Args:
        gan_loss: The adversarial loss.
        label_smoothing: As in `ganvas.losses.gan_loss_d`.
        halved: Whether loss_d is half of `gan_loss_d`.
    """
    pairs = gan_loss == "relativistic"  # its scores mean something in pairs only; a guess is that both are alike
    guess = torch.tensor(0.0 if pairs else real_threshold(gan_loss, label_smoothing=label_smoothing))
    lowest = lowest_gan_loss_d(gan_loss, label_smoothing=label_smoothing)
    if math.isinf(lowest):
        return lowest
    guessing = float(gan_loss_d(guess, guess, gan_loss, label_smoothing=label_smoothing))
    return (lowest + WON * (guessing - lowest)) * (0.5 if halved else 1)


def d_won(history: History, *, below: float, advice: str, name: str = "D", loss: str = "loss_d") -> str | None:
    """Find a discriminator that is right with no doubt.

    Args:
        history: With the curve ``loss``.
        below: As `won_loss` returns.
        advice: What helps.
        name: The discriminator.
        loss: Name of its loss.
    """
    curve = _values(history, loss)
    if not _persists(curve, below, below):
        return None
    return (
        f"{name} has won ({loss} {curve[-1]:.2g}): it is sure which images are generated, and the generator learns "
        f"little from it. {advice}"
    )


def g_frozen(history: History, *, generator: str = "G", discriminator: str = "D") -> str | None:
    """Find a generator whose weights stay as they are while its discriminator's change.

    Args:
        history: With the curves of `weight_norms`, of the same steps.
        generator: Name of the generator.
        discriminator: Name of its discriminator.
    """
    moved_g, moved_d = (_changes(_values(history, f"weights_{name}")) for name in (generator, discriminator))
    recent = [*zip(moved_g, moved_d, strict=False)][-FROZEN_POINTS:]
    if len(recent) < FROZEN_POINTS or not all(g < FROZEN * d for g, d in recent):
        return None
    return f"{generator} is frozen: its weights do not change, while those of {discriminator} do. Raise --lr."


def collapsed(history: History, *, figures: Mapping[str, str], advice: str, below: float = COLLAPSED) -> str | None:
    """Find generated images that are alike, or of few kinds.

    Args:
        history: With curves of shares of the real images' variety, 1 if it is the same.
        figures: Names of these curves, and what each says, with a place for the share.
        advice: What helps.
        below: Where that share is a collapse.
    """
    curves = {name: _values(history, name) for name in figures}
    if not any(_persists(curve, below, RECOVERED * below) for curve in curves.values()):
        return None
    found = ", and ".join(text.format(curves[name][-1]) for name, text in figures.items() if curves[name])
    return f"Mode collapse: the images are alike; {found}. {advice}"


def untouched(history: History, *, direction: str, advice: str) -> str | None:
    """Find a generator that returns its input, by the curve change_DIRECTION of `translation_figures`."""
    if not _persists(_values(history, f"change_{direction}"), UNTOUCHED, UNTOUCHED):
        return None
    return f"{direction}: the output equals the input. {advice}"


def inverted(history: History, *, direction: str, advice: str) -> str | None:
    """Find inverted colors, by the correlations of `translation_figures`.

    Two generators can agree to invert colors: the cycle loss does not notice, since the second one inverts again. Only
    the identity pass is proof: G_ab should leave an image of domain b as it is, and returns its negative. A translation
    that is dark where its source is bright is a hint only, since some domains are like that.
    """
    kept, like_source = (_values(history, f"correlation_{of}_{direction}") for of in ("identity", "source"))
    if _persists(kept, 0, 0):
        return (
            f"{direction}: colors are inverted: the identity pass returns the negative (correlation {kept[-1]:.2f}). "
            f"{advice}"
        )
    if _persists(like_source, 0, 0):
        return (
            f"{direction}: colors may be inverted: translations are dark where their sources are bright (correlation "
            f"{like_source[-1]:.2f}). Check the samples; if the domains are not like that, do this. {advice}"
        )
    return None


def overfitting(history: History, *, train: str, val: str) -> str | None:
    """Find held-out images that no longer become better while the training images still do.

    Args:
        history: With both curves; lower is better. If there is one of ``val`` in the running mode of batch norm, it is
            taken: the mode that a validation chooses may change.
        train: Name of the training's loss.
        val: Name of the same measure of held-out images.
    """
    held_out, trained = _values(history, f"{val}_running") or _values(history, val), _values(history, train)
    if len(held_out) <= OVERFIT_VALIDATIONS or len(trained) < 2:
        return None
    (before, now), best = _halves(trained), min(held_out)
    if (
        min(held_out[-OVERFIT_VALIDATIONS:]) <= best
        or held_out[-1] < now * OVERFIT_GAP
        or now > before * (1 - OVERFIT_FALL)
    ):
        return None
    return (
        f"Overfitting: {train} falls (to {now:.3g}), while {val} has not improved for {OVERFIT_VALIDATIONS} "
        f"validations ({held_out[-1]:.3g}, at best {best:.3g}). The best model so far is kept. More images help, or "
        "--augment strong; a longer training does not."
    )


def leveled_off(history: History, *, losses: Sequence[str]) -> str | None:
    """Find losses that have stopped changing: then a training may end, if its images look right."""
    recent = {name: history.get(name, [])[-LEVEL_POINTS:] for name in losses}
    for curve in recent.values():
        values = [value for _, value in curve]
        if len(values) < LEVEL_POINTS or abs(_halves(values)[1] - _halves(values)[0]) > LEVEL * fmean(map(abs, values)):
            return None
    steps = max(curve[-1][0] - curve[0][0] for curve in recent.values())
    return f"The losses ({', '.join(losses)}) have leveled off over {steps:.0f} steps. If the samples look right, stop."


def _values(history: History, name: str) -> list[float]:
    return [value for _, value in history.get(name, ())]


def _persists(values: Sequence[float], below: float, until: float) -> bool:
    """Return whether values were below a limit ``IN_A_ROW`` times, and have stayed below ``until`` since."""
    row, found = 0, False
    for value in values:
        row = row + 1 if value < below else 0
        found = row >= IN_A_ROW or (found and value < until)
    return found


def _changes(values: Sequence[float]) -> list[float]:
    """Return the relative changes from each value to the next."""
    return [abs(after - before) / before for before, after in pairwise(values) if before]


def _halves(values: Sequence[float]) -> tuple[float, float]:
    """Return the means of the first and the second half."""
    middle = len(values) // 2
    return fmean(values[:middle]), fmean(values[middle:])
