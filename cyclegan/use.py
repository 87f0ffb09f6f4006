"""What the commands evaluate and receptive-field do; the options come from ``cyclegan.__main__``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ganvas.data.images import require_picture_suffix, to_array, to_tensor, write_image
from ganvas.data.listing import Files
from ganvas.data.paired import dataset_info
from ganvas.data.unpaired import are_pairs, find_domains
from ganvas.errors import UserError
from ganvas.evaluation.baseline import match_colours
from ganvas.evaluation.metrics import PATCH_SIZE, bootstrap_interval, l1, psnr, sliced_wasserstein, ssim
from ganvas.evaluation.sheet import contact_sheet
from ganvas.files import write_json
from ganvas.inference.translator import Translator
from ganvas.modelfile import load_model
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from ganvas.nn.resnet import ResNetGenerator
from ganvas.receptive_field_command import ReceptiveFieldOptions, run
from ganvas.training.device import choose_device

if TYPE_CHECKING:
    from cyclegan.__main__ import Evaluate

SHEET_ROWS = 4  # of each direction
PER_PICTURE = {"l1": l1, "psnr": psnr, "ssim": ssim}


def run_evaluate(options: "Evaluate") -> int:
    """Score a model on a split, both ways.

    Raises:
        UserError: No model of both directions, no data, or pictures that cannot be read.
    """
    if options.sheet is not None:
        require_picture_suffix(options.sheet)
    device = choose_device(options.device)
    config, generators = load_model(options.model, ("cyclegan",))
    translators = {way: Translator(config, generators, direction=way, device=device) for way in ("a2b", "b2a")}
    found = zip("ab", find_domains(options.data, options.split), strict=True)
    files = {domain: _evenly(every, options.limit) for domain, every in found}
    real = {
        domain: [to_tensor(there.read(path).array, there.preprocessing.source_range) for path in files[domain]]
        for domain, there in (("a", translators["a2b"]), ("b", translators["b2a"]))
    }
    paired = are_pairs(options.data, options.split) and _sizes(real["a"]) == _sizes(real["b"])
    result: dict[str, Any] = {
        "model": str(options.model),
        "data": str(options.data),
        "split": options.split,
        "pictures": len(files["a"]) + len(files["b"]),
        "metrics": {},
    }
    baselines: dict[str, Any] = {}
    sheet = []
    console = Console(stderr=True)
    for there, back, a, b in (("a2b", "b2a", "a", "b"), ("b2a", "a2b", "b", "a")):
        with console.status(f"translating {there}"):
            fake = _translated(translators[there], real[a])
            cycled = _translated(translators[back], fake)
        metrics = {f"cycle_l1_{a}": _interval(cycled, real[a])}
        if real[a][0].shape[0] == real[b][0].shape[0]:
            metrics[f"identity_l1_{a}"] = _interval(_translated(translators[back], real[a]), real[a])
        metrics |= _distance(f"sliced_wasserstein_{there}", fake, real[b])
        if paired:
            metrics |= _against_truth(there, fake, real[b])
            baselines |= _baseline(there, real[a], real[b])
        result["metrics"] |= metrics
        sheet += _rows(real[a], fake, cycled, real[b] if paired else None)
    if baselines:
        result["baselines"] = baselines
    if options.sheet is not None:
        heads = ["source", "translated", "cycled back", "truth"][: len(sheet[0])]
        write_image(options.sheet, contact_sheet(sheet, heads))
    if (options.model / "model").is_dir():
        write_json(options.model / "evaluation.json", {name: result[name] for name in result if name != "baselines"})
    if options.json:
        print(json.dumps(result))
    else:
        _print_scores(result, dataset_info(options.data).get("domains", {}))
    return 0


def _evenly(files: Files, limit: int | None) -> list[Path]:
    """Choose at most ``limit`` files, evenly over all of them."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; at least 1 picture is needed.")
    count = len(files) if limit is None else min(limit, len(files))
    return [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]


def _sizes(pictures: list[Tensor]) -> list[torch.Size]:
    return [picture.shape[-2:] for picture in pictures]


def _translated(translator: Translator, pictures: list[Tensor]) -> list[Tensor]:
    return [translator.translate_tensor(picture[None])[0] for picture in pictures]


def _interval(outputs: list[Tensor], targets: list[Tensor]) -> dict[str, float]:
    return vars(bootstrap_interval(_per_picture("l1", outputs, targets)))


def _per_picture(metric: str, outputs: list[Tensor], targets: list[Tensor]) -> np.ndarray:
    pairs = zip(outputs, targets, strict=True)
    return np.array([PER_PICTURE[metric](output[None], target[None]).item() for output, target in pairs])


def _distance(name: str, outputs: list[Tensor], targets: list[Tensor]) -> dict[str, dict[str, float]]:
    """Compare patch statistics of two sets; only pictures of one size, not tiny, have them."""
    if len({picture.shape for picture in [*outputs, *targets]}) > 1 or min(targets[0].shape[-2:]) < PATCH_SIZE:
        return {}
    return {name: {"mean": sliced_wasserstein(torch.stack(outputs), torch.stack(targets)).mean}}


def _against_truth(way: str, outputs: list[Tensor], targets: list[Tensor]) -> dict[str, dict[str, float]]:
    return {
        f"{metric}_{way}": vars(bootstrap_interval(_per_picture(metric, outputs, targets))) for metric in PER_PICTURE
    }


def _baseline(way: str, sources: list[Tensor], targets: list[Tensor]) -> dict[str, dict[str, float]]:
    """Score what needs no learning: one flat colour, the source itself, and its colours matched to the domain."""
    flat = torch.cat([target.flatten(1) for target in targets], dim=1).median(dim=1).values[:, None, None]
    trivial = {"flat": [flat.expand_as(target) for target in targets]}
    if sources[0].shape[0] == targets[0].shape[0]:
        trivial |= {"copy": sources, "colours matched": match_colours(sources, targets)}
    return {
        f"{name} {way}": {
            "l1": float(_per_picture("l1", outputs, targets).mean()),
            **{key: value["mean"] for key, value in _distance("sliced_wasserstein", outputs, targets).items()},
        }
        for name, outputs in trivial.items()
    }


def _rows(
    source: list[Tensor], fake: list[Tensor], cycled: list[Tensor], truth: list[Tensor] | None
) -> list[list[np.ndarray]]:
    chosen = np.unique(np.linspace(0, len(source) - 1, min(SHEET_ROWS, len(source))).round().astype(int))
    columns = [source, fake, cycled, *([truth] if truth is not None else [])]
    return [[to_array(column[i], np.uint8) for column in columns] for i in chosen]


def _print_scores(result: Mapping[str, Any], domains: Mapping[str, str]) -> None:
    a, b = domains.get("a", "A"), domains.get("b", "B")
    console = Console(markup=False)
    table = Table(title=f"{result['pictures']} pictures of {result['split']}; a is {a}, b is {b}", title_justify="left")
    table.add_column("metric")
    table.add_column("model", justify="right")
    for name, values in result["metrics"].items():
        interval = f" [{values['low']:.4f}, {values['high']:.4f}]" if "low" in values else ""
        table.add_row(name, f"{values['mean']:.4f}{interval}")
    console.print(table)
    for name, values in result.get("baselines", {}).items():
        console.print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))


def run_receptive_field(options: ReceptiveFieldOptions) -> int:
    """Print the fields of the discriminator of one domain and of the ResNet generator."""
    run(options, _networks)
    return 0


def _networks(num_layers: int) -> Mapping[str, nn.Module]:
    with torch.device("meta"):
        discriminator = (
            PatchDiscriminator(3, num_layers=num_layers, norm="instance")
            if num_layers
            else PixelDiscriminator(3, norm="instance")
        )
        return {"discriminator": discriminator, "generator": ResNetGenerator()}
