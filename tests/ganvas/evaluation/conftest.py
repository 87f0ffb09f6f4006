"""A run as training leaves it, with every file that the report reads."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganvas.evaluation.sheet import contact_sheet

HOSTILE = "datasets/<script>alert('data')</script>\" & more"


def _score(mean: float, half_width: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - half_width, "high": mean + half_width}


CONFIG = {
    "format_version": 1,
    "data": {"data": HOSTILE, "direction": "a2b", "image_size": 128, "load_size": None, "flip": True, "batch_size": 4},
    "model": {"levels": 7, "base_channels": 32, "norm": "batch", "gan_loss": "vanilla", "lambda_l1": 100.0},
    "optimizer": {"lr": 0.0002, "beta1": 0.5, "beta2": 0.999},
    "schedule": {"epochs": 100, "decay_epochs": 100, "steps": 1200, "decay_steps": None, "schedule": "linear"},
    "hardware": {"device": "auto", "devices": 1, "precision": "auto", "threads": 2, "cache_gb": 2.0},
    "logging": {"log_every_steps": 10, "sample_every_steps": 100, "keep_checkpoints": 2},
    "seed": 0,
}
MODEL = {
    "format_version": 1,
    "kind": "pix2pix",
    "networks": {
        "a2b": {
            "architecture": "unet",
            "arguments": {"base_channels": 32, "dropout_levels": [0, 1, 2], "num_levels": 7},
            "source": "map",
            "target": "terrain",
        }
    },
    "preprocessing": {"source_channels": 3, "target_channels": 3, "image_size": 128, "resized": False},
    "statistics": "picture",
    "training": {"step": 1100, "metrics": {"val_l1": 0.1432}},
    "weights_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
EVALUATION = {
    "model": "runs/earth",
    "data": HOSTILE,
    "split": "test",
    "pictures": 40,
    "metrics": {
        "l1": _score(0.1432, 0.0121),
        "psnr": _score(16.53, 0.61),
        "ssim": _score(0.4123, 0.0301),
        "sliced_wasserstein": {"mean": 0.1911},
    },
    "baseline": {
        "l1": _score(0.1467, 0.0117),
        "psnr": _score(16.11, 0.55),
        "ssim": _score(0.4391, 0.0283),
        "sliced_wasserstein": {"mean": 0.6022},
    },
    "l1_minus_baseline": {"mean": -0.0035, "low": -0.0061, "high": -0.0009},
    "per_picture": [{"name": "tile", "l1": 0.14, "psnr": 16.5, "ssim": 0.41}],
}


def _log(steps: int) -> list[dict[str, float]]:
    """Losses that fall and jitter, and a validation every hundred steps."""
    rng = np.random.default_rng(0)
    lines = []
    for step in range(10, steps + 1, 10):
        jitter = rng.normal(size=4)
        gan, l1 = 0.9 + 1.2 * step / steps + 0.2 * jitter[0], 0.13 + 0.25 * np.exp(-step / 200) + 0.01 * jitter[1]
        line = {"step": step, "epoch": (step - 1) // 58, "seconds": round(0.14 * step, 2)}
        losses = {"loss_d": 0.9 - 0.4 * step / steps + 0.08 * jitter[2], "loss_g_gan": gan, "loss_g_l1": l1}
        rate = {"lr": 2e-4 * min(1.0, 2 - 2 * step / steps), "images_per_second": 28 + jitter[3]}
        lines.append(line | losses | {"loss_g": gan + 100 * l1} | rate)
        if step % 100 == 0:
            score = 0.14 + 0.2 * np.exp(-step / 250) + 0.002 * jitter[1]
            modes = {"val_l1_running": score + 0.01, "val_l1_picture": score}
            ratios = {"val_psnr": 17 - 20 * score, "val_ssim": 0.6 - score}
            lines.append({"step": step, "epoch": line["epoch"], "val_l1": score} | modes | ratios)
    return lines


def _sheet(step: int) -> np.ndarray:
    return contact_sheet([[np.full((96, 96, 3), step % 256, np.uint8)] * 3] * 2, ["a", "b", "c"])


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a run folder; one of 0 steps has just begun."""

    def make(*, steps: int = 1200, samples: bool = False, evaluated: bool = True) -> Path:
        run = tmp_path / "earth & 'demo'"
        (run / "samples").mkdir(parents=True)
        (run / "model").mkdir()
        (run / "config.json").write_text(json.dumps(CONFIG))
        if steps:
            (run / "model/config.json").write_text(json.dumps(MODEL))
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _log(steps)))
        for step in range(100, steps + 1, 100) if samples else ():
            Image.fromarray(_sheet(step)).save(run / f"samples/step-{step:08d}.png")
        if evaluated:
            (run / "evaluation.json").write_text(json.dumps(EVALUATION))
        return run

    return make
