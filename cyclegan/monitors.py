"""The checks of a CycleGAN or CUT training, for each of its directions."""

from functools import partial

from cyclegan.config import CycleGanConfig
from cyclegan.networks import DOMAINS, discriminator_names, generator_names
from cyclegan.task import CycleGanTask
from ganvas.training.monitors import (
    COLLAPSED_TRANSLATIONS,
    Check,
    Monitor,
    collapsed,
    d_won,
    g_frozen,
    inverted,
    leveled_off,
    overfitting,
    untouched,
    won_loss,
)


def build_monitor(config: CycleGanConfig, task: CycleGanTask) -> Monitor:
    """Choose the checks, and their advice by the options that each objective has."""
    checks: dict[str, Check] = {}
    below, losses = won_loss(config.model.gan_loss, halved=True), []
    is_cycle = config.model.objective == "cycle"
    keep = "--lambda-identity, even to 0, or --lambda-cycle" if is_cycle else "--lambda-nce"
    another = "Start again with another --seed" + (", or a larger --lambda-identity." if is_cycle else ".")
    for direction, G in generator_names(config).items():
        a, b = DOMAINS[direction]
        D = discriminator_names(config)[b]
        losses.append(f"loss_{D.lower()}")
        won = "Lower --lr, fewer --patch-layers, or more images of that domain."
        shares = {f"diversity_{direction}": direction + ": their spread is {:.0%} of the real images'"}
        checks |= {
            f"{D} has won": partial(d_won, name=D, loss=losses[-1], below=below, advice=won),
            f"{G} is frozen": partial(g_frozen, generator=G, discriminator=D),
            f"{direction}: mode collapse": partial(
                collapsed, figures=shares, below=COLLAPSED_TRANSLATIONS, advice="Lower --lr, or another --seed."
            ),
            f"{direction}: output equals input": partial(untouched, direction=direction, advice=f"Lower {keep}."),
            f"{direction}: inverted colors": partial(inverted, direction=direction, advice=another),
        }
        if is_cycle:  # PatchNCE of held-out images is not computed
            checks[f"{direction}: overfitting"] = partial(overfitting, train=f"loss_cycle_{a}", val=f"val_cycle_{a}")
    checks["leveled off"] = partial(leveled_off, losses=(*losses, "loss_g"))
    return Monitor(checks, advisory=["leveled off"], views=task.figures)
