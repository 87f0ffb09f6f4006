"""Speed of a training step: the plain textbook step and ganvas's own, in one process and in turn.

    python -m benchmarks.train_step --model pix2pix --image-size 256 --batch-size 1,4

The plain step is what one writes after reading the paper: float32, contiguous memory, default Adam, torch's own layers.
Both work on the same pictures. Prints images/s (medians), the ratio of the two with a 95% interval over the pairs,
and the share of the machine's measured matrix-product peak. FLOPs are counted by torch for the forward passes and
three times that where a pass is trained (forward, and two products backward).
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ganvas.nn.init import initialize_weights
from ganvas.nn.patchgan import PatchDiscriminator
from ganvas.nn.unet import UNetGenerator
from ganvas.training.device import choose_device, choose_precision
from ganvas.training.optimizer import Adam
from pix2pix.step import Pix2PixStep

Step = Callable[[Tensor, Tensor], object]


@dataclass(frozen=True)
class Options:
    """Measure the training step."""

    model: Literal["pix2pix"] = "pix2pix"
    """Which model."""
    image_size: int = 256
    """Pixels a side."""
    batch_size: str = "1,4"
    """Batch sizes, with commas between."""
    pairs: int = 9
    """Measured pairs of steps, plain and ours in turn; at least 7."""
    warmup: int = 3
    """Pairs before those."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    json: bool = False
    """Print one JSON object."""


def plain_unet() -> nn.Module:
    """Build the paper's U-Net of torch's own layers, as a textbook would."""

    class Level(nn.Module):
        """One level with all that lies inside it."""

        def __init__(self, outer: int, inner: int, inside: nn.Module | None, drop: bool) -> None:
            super().__init__()
            norm_down = [nn.BatchNorm2d(inner)] if inside is not None else []
            self.down = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=False), *norm_down)
            self.inside = inside
            width = inner if inside is None else 2 * inner
            up = nn.ConvTranspose2d(width, outer, 4, 2, 1, bias=False)
            self.up = nn.Sequential(nn.ReLU(), up, nn.BatchNorm2d(outer), *([nn.Dropout(0.5)] if drop else []))

        def forward(self, x: Tensor) -> Tensor:
            """Give the input and what came back up, side by side."""
            y = self.down(x)
            return torch.cat([x, self.up(y if self.inside is None else self.inside(y))], 1)

    inside: nn.Module | None = None
    for depth, (outer, inner) in enumerate(
        [(512, 512), (512, 512), (512, 512), (512, 512), (256, 512), (128, 256), (64, 128)]
    ):
        inside = Level(outer, inner, inside, drop=depth < 3)
    assert inside is not None
    return nn.Sequential(
        nn.Conv2d(3, 64, 4, 2, 1, bias=False), inside, nn.ReLU(), nn.ConvTranspose2d(128, 3, 4, 2, 1), nn.Tanh()
    )


def plain_patchgan() -> nn.Module:
    """Build the 70x70 PatchGAN of torch's own layers."""
    layers: list[nn.Module] = [nn.Conv2d(6, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for before, after, stride in ((64, 128, 2), (128, 256, 2), (256, 512, 1)):
        layers += [nn.Conv2d(before, after, 4, stride, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


def plain_step(device: str) -> Step:
    """Make the step a textbook would write."""
    G, D = plain_unet().to(device), plain_patchgan().to(device)
    initialize_weights(G)
    initialize_weights(D)
    adam_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def judge(scores: Tensor, real: bool) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(real)))

    def step(source: Tensor, target: Tensor) -> object:
        fake = G(source)
        for parameter in D.parameters():
            parameter.requires_grad_(True)
        real_scores = D(torch.cat([source, target], 1))
        fake_scores = D(torch.cat([source, fake.detach()], 1))
        loss_d = 0.5 * (judge(real_scores, True) + judge(fake_scores, False))
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        for parameter in D.parameters():
            parameter.requires_grad_(False)
        loss_g = judge(D(torch.cat([source, fake], 1)), True) + 100 * F.l1_loss(fake, target)
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        return loss_d, loss_g

    return step


def our_step(device: str) -> Step:
    """Make the product's step at its default precision, set up as the training sets it up."""
    G, D = UNetGenerator().to(device), PatchDiscriminator().to(device)
    adams = []
    for network in (G, D):
        initialize_weights(network)
        network.to(memory_format=torch.channels_last)
        adams.append(Adam(network.named_parameters(), 2e-4))
    update = Pix2PixStep(G, D, adams[0], adams[1], bf16=choose_precision("auto", device) == "bf16")

    def step(source: Tensor, target: Tensor) -> object:
        layout = torch.channels_last
        return update({"source": source.to(memory_format=layout), "target": target.to(memory_format=layout)})

    return step


def flops_per_image(size: int) -> float:
    """Count a step's work: G forward and backward, D trained on real and fake, D passed through for G."""
    source = torch.zeros(1, 3, size, size, device="meta")
    counts = []
    with torch.device("meta"):
        for network, x in ((UNetGenerator(), source), (PatchDiscriminator(), torch.cat([source, source], 1))):
            with FlopCounterMode(display=False) as counter:
                network(x)
            counts.append(counter.get_total_flops())
    G, D = counts
    return float(3 * G + 2 * 3 * D + 2 * D)


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Measure the fastest matrix product of a few tries, in FLOP/s."""
    n = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(_timed(lambda: a @ b, device) for _ in range(8))


def _timed(function: Callable[[], object], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def ratio_interval(ratios: list[float]) -> tuple[float, float]:
    """Give a 95% bootstrap interval of the median ratio."""
    values = torch.tensor(ratios)
    picks = torch.randint(len(ratios), (5000, len(ratios)), generator=torch.Generator().manual_seed(0))
    low, high = torch.quantile(values[picks].median(dim=1).values, torch.tensor([0.025, 0.975]))
    return float(low), float(high)


def measure(options: Options, batch_size: int, device: str) -> dict[str, object]:
    """Measure both steps in turn at one batch size."""
    S = options.image_size
    chance = torch.Generator().manual_seed(0)
    source, target = (torch.rand(batch_size, 3, S, S, generator=chance).mul(2).sub(1).to(device) for _ in range(2))
    plain, ours = plain_step(device), our_step(device)
    times: list[tuple[float, float]] = []
    for _ in range(options.warmup + options.pairs):
        times.append((_timed(lambda: plain(source, target), device), _timed(lambda: ours(source, target), device)))
    times = times[options.warmup :]
    seconds = [statistics.median(column) for column in zip(*times, strict=True)]
    ratios = [a / b for a, b in times]
    dtype = torch.bfloat16 if choose_precision("auto", device) == "bf16" else torch.float32
    work = flops_per_image(S) * batch_size
    low, high = ratio_interval(ratios)
    return {
        "batch_size": batch_size,
        "plain_images_per_second": batch_size / seconds[0],
        "our_images_per_second": batch_size / seconds[1],
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "plain_share_of_peak": work / seconds[0] / peak_flops(device, torch.float32),
        "our_share_of_peak": work / seconds[1] / peak_flops(device, dtype),
        "our_precision": str(dtype).removeprefix("torch."),
    }


def main() -> int:
    """Run the benchmark; give the exit code."""
    options = tyro.cli(Options, prog="python -m benchmarks.train_step")
    if options.pairs < 7:
        print("--pairs is below 7: fewer say nothing on a noisy machine.", file=sys.stderr)
        return 2
    device = choose_device(options.device)
    results = [measure(options, int(size), device) for size in options.batch_size.split(",")]
    if options.json:
        print(json.dumps({"device": device, "threads": torch.get_num_threads(), "results": results}))
        return 0
    print(f"{options.model}, {options.image_size} pixels, {device}, {torch.get_num_threads()} threads")
    print("| batch | plain images/s | ganvas images/s | ratio [95%] | plain of fp32 peak | ganvas of its peak |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in results:
        print(
            f"| {r['batch_size']} | {r['plain_images_per_second']:.2f} | {r['our_images_per_second']:.2f} "
            f"| {r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}] | {r['plain_share_of_peak']:.0%} "
            f"| {r['our_share_of_peak']:.0%} ({r['our_precision']}) |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
