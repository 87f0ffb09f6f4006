"""What the commands evaluate and receptive-field do; the options come from ``cyclegan.__main__``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ganvas.cli.receptive_field import ReceptiveFieldOptions, run
from ganvas.data.images import require_image_suffix, to_array, to_tensor, write_image
from ganvas.data.listing import Files, describe_unread
from ganvas.data.paired import dataset_info, domain_names
from ganvas.data.unpaired import are_pairs, find_domains
from ganvas.device import choose_device
from ganvas.errors import UserError
from ganvas.evaluation.baseline import DomainColours, match_colours
from ganvas.evaluation.metrics import PATCH_SIZE, l1, psnr, sliced_wasserstein, ssim
from ganvas.evaluation.results import FEWEST_FOR_INTERVAL, NO_INTERVAL, format_score, keep_with_run, mean_and_interval
from ganvas.evaluation.sheet import contact_sheet
from ganvas.files import require_writable
from ganvas.inference.translator import Translator
from ganvas.models.folder import load_model
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from ganvas.nn.resnet import ResNetGenerator

if TYPE_CHECKING:
    from cyclegan.__main__ import Evaluate

SHEET_ROWS = 4  # of each direction
MEASURED = 200  # training images of each domain whose colors are measured
PER_PICTURE = {"l1": l1, "psnr": psnr, "ssim": ssim}


def run_evaluate(options: "Evaluate") -> int:
    """Score a model on a split, both ways.

    Raises:
        UserError: No model of both directions, no data, or images that cannot be read.
    """
    if options.sheet is not None:
        require_image_suffix(options.sheet)
        require_writable(options.sheet)
    device = choose_device(options.device)
    config, generators = load_model(options.model, ("cyclegan",))
    translators = {way: Translator(config, generators, direction=way, device=device) for way in ("a2b", "b2a")}
    found = find_domains(options.data, options.split)
    files = {domain: _evenly(every, options.limit) for domain, every in zip("ab", found, strict=True)}
    sources = {"a": translators["a2b"], "b": translators["b2a"]}  # the translator whose source each domain is
    images = {domain: [translator.read(path).array for path in files[domain]] for domain, translator in sources.items()}
    real = {domain: _tensors(translator, images[domain]) for domain, translator in sources.items()}
    named_alike = are_pairs(options.data, options.split)
    unequal = _unequal_pair(files, real) if named_alike else ""
    paired = named_alike and not unequal
    # What patch statistics are taken of: all of it has to be of one size.
    cropped, comparable = images, real
    if len({picture.shape[-2:] for picture in [*real["a"], *real["b"]]}) > 1:
        cropped = {domain: _as_trained(translator, images[domain]) for domain, translator in sources.items()}
        comparable = {domain: _tensors(translator, cropped[domain]) for domain, translator in sources.items()}
    result: dict[str, Any] = {
        "model": str(options.model),
        "data": str(options.data),
        "split": options.split,
        "pictures": len(files["a"]) + len(files["b"]),
        "metrics": {},
    }
    baselines: dict[str, Any] = {}
    known = _known_colours(options, translators, real) if paired else {}
    sheet = []
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if unread := describe_unread(found[0].unread + found[1].unread):
        console.print(unread)
    for there, back, a, b in (("a2b", "b2a", "a", "b"), ("b2a", "a2b", "b", "a")):
        with console.status(f"translating {there}"):
            fake = _translated(translators[there], images[a])
            back_range = translators[back].preprocessing.source_range
            cycled = _translated(translators[back], [to_array(one, np.float32, back_range) for one in fake])
        metrics = {f"cycle_l1_{a}": _interval(cycled, real[a])}
        if real[a][0].shape[0] == real[b][0].shape[0]:
            metrics[f"identity_l1_{a}"] = _interval(_translated(translators[back], images[a]), real[a])
        # Translated again where sizes differ: a translation scaled back and again would be blurred once more.
        drawn = fake if comparable is real else _translated(translators[there], cropped[a])
        metrics |= _distance(f"sliced_wasserstein_{there}", drawn, comparable[b])
        if paired:
            metrics |= _against_truth(there, fake, real[b])
            baselines |= _baseline(there, real, comparable, known, a, b)
        result["metrics"] |= metrics
        sheet += _rows(real[a], fake, cycled, real[b] if paired else None)
    if baselines:
        result["baselines"] = baselines
    trained_size = config.preprocessing.image_size if comparable is not real else None
    notes = _notes(unequal, trained_size, has_distance="sliced_wasserstein_a2b" in result["metrics"])
    if any(len(each) < FEWEST_FOR_INTERVAL for each in files.values()):
        notes.append(NO_INTERVAL)
    if notes:
        result["notes"] = notes
        console.print("\n".join(notes))
    if options.json:
        print(json.dumps(result))
    else:
        _print_scores(result, domain_names(dataset_info(options.data)))

    # Write files, now that no full disk can take the figures.
    if options.sheet is not None:
        heads = ["source", "translated", "cycled back", "truth"][: len(sheet[0])]
        write_image(options.sheet, contact_sheet(sheet, heads))
    keep_with_run(options.model, result)
    return 0


def _evenly(files: Files, limit: int | None) -> list[Path]:
    """Choose at most ``limit`` files, evenly over all of them."""
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; at least 1 image is needed.")
    count = len(files) if limit is None else min(limit, len(files))
    return [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]


def _tensors(translator: Translator, images: Sequence[np.ndarray]) -> list[Tensor]:
    """Return sources of a direction as [C, H, W] in [-1, 1]."""
    return [to_tensor(image, translator.preprocessing.source_range) for image in images]


def _unequal_pair(files: Mapping[str, list[Path]], pictures: Mapping[str, list[Tensor]]) -> str:
    """Describe the first pair whose images differ in size; empty where there is none."""
    for paths, pair in zip(*(zip(*each.values(), strict=True) for each in (files, pictures)), strict=True):
        sizes = [f"{picture.shape[2]}x{picture.shape[1]}" for picture in pair]
        if len(set(sizes)) > 1:
            return f"{paths[0]} is {sizes[0]} pixels and {paths[1]} {sizes[1]}"
    return ""


def _notes(unequal: str, trained_size: int | None, *, has_distance: bool) -> list[str]:
    """Say which scores are left out or are of changed images, and why."""
    notes = []
    if unequal:
        notes.append(f"Nothing is compared with the truth: {unequal}. The images of a pair must be of one size.")
    if not has_distance:
        notes.append(
            f"No sliced Wasserstein distance: there are images of less than {PATCH_SIZE} pixels, or of several sizes "
            "and smaller than those of the training."
        )
    elif trained_size is not None:
        notes.append(
            "The images differ in size: the sliced Wasserstein distance is that of images as the training saw "
            f"them, {trained_size} pixels a side."
        )
    return notes


def _as_trained(translator: Translator, images: list[np.ndarray]) -> list[np.ndarray]:
    """Return sources [H, W, C] as the training saw its own: scaled to its size, or a center crop where it cropped."""
    if translator.resizes:
        return [translator.scaled(image) for image in images]
    return [_center_crop(image, translator.preprocessing.image_size) for image in images]


def _center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the center of [H, W, C]: at most ``size`` pixels a side."""
    top, left = (max(0, side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _translated(translator: Translator, images: list[np.ndarray]) -> list[Tensor]:
    return [translator.translate_exactly(image) for image in images]


def _interval(outputs: list[Tensor], targets: list[Tensor]) -> dict[str, float]:
    return mean_and_interval(_per_picture("l1", outputs, targets))


def _per_picture(metric: str, outputs: list[Tensor], targets: list[Tensor]) -> np.ndarray:
    pairs = zip(outputs, targets, strict=True)
    return np.array([PER_PICTURE[metric](output[None], target[None]).item() for output, target in pairs])


def _distance(name: str, outputs: list[Tensor], targets: list[Tensor]) -> dict[str, dict[str, float]]:
    """Compare patch statistics of two sets; only images of one size, not tiny, have them."""
    if len({picture.shape for picture in [*outputs, *targets]}) > 1 or min(targets[0].shape[-2:]) < PATCH_SIZE:
        return {}
    return {name: {"mean": sliced_wasserstein(torch.stack(outputs), torch.stack(targets)).mean}}


def _against_truth(way: str, outputs: list[Tensor], targets: list[Tensor]) -> dict[str, dict[str, float]]:
    return {f"{metric}_{way}": mean_and_interval(_per_picture(metric, outputs, targets)) for metric in PER_PICTURE}


def _known_colours(
    options: "Evaluate", translators: Mapping[str, Translator], real: Mapping[str, list[Tensor]]
) -> dict[str, dict[str, DomainColours]]:
    """Measure the colors of both domains: of the training images, and of the very images that are the truth.

    The first is what a translator can know; the second tells how much of its error is that the two differ.
    """
    colours = {"to the truth": {domain: DomainColours.of(pictures) for domain, pictures in real.items()}}
    try:
        found = find_domains(options.data, "train")
    except UserError:  # a dataset for testing alone
        return colours
    colours["to train"] = {
        domain: DomainColours.of(
            _tensors(translators[way], [translators[way].read(path).array for path in _evenly(files, MEASURED)])
        )
        for domain, way, files in zip("ab", ("a2b", "b2a"), found, strict=True)
    }
    return colours


def _baseline(
    way: str,
    real: Mapping[str, list[Tensor]],
    comparable: Mapping[str, list[Tensor]],
    known: Mapping[str, Mapping[str, DomainColours]],
    a: str,
    b: str,
) -> dict[str, dict[str, float]]:
    """Score what needs no learning, from domain ``a`` to ``b``: L1 of the images, patches of comparable ones."""
    drawn, scores = _trivial(comparable[a], known, a, b), {}
    for name, outputs in _trivial(real[a], known, a, b).items():
        distance = _distance("sliced_wasserstein", drawn[name], comparable[b])
        scores[f"{name} {way}"] = {
            "l1": float(_per_picture("l1", outputs, real[b]).mean()),
            **{key: value["mean"] for key, value in distance.items()},
        }
    return scores


def _trivial(
    sources: list[Tensor], known: Mapping[str, Mapping[str, DomainColours]], a: str, b: str
) -> dict[str, list[Tensor]]:
    """Translate by the source itself, by one flat color, and by the source's colors matched to the domain."""
    trivial = {}
    for where, colours in known.items():
        trivial[f"flat {where}"] = [colours[b].flat(source) for source in sources]
        if colours[a].mean.shape == colours[b].mean.shape:
            trivial["copy"] = sources
            trivial[f"colors matched {where}"] = [match_colours(s, colours[a], colours[b]) for s in sources]
    return trivial


def _rows(
    source: list[Tensor], fake: list[Tensor], cycled: list[Tensor], truth: list[Tensor] | None
) -> list[list[np.ndarray]]:
    chosen = np.unique(np.linspace(0, len(source) - 1, min(SHEET_ROWS, len(source))).round().astype(int))
    columns = [source, fake, cycled, *([truth] if truth is not None else [])]
    return [[to_array(column[i], np.uint8) for column in columns] for i in chosen]


def _print_scores(result: Mapping[str, Any], domains: tuple[str, str]) -> None:
    a, b = domains
    console = Console(markup=False)
    table = Table(title=f"{result['pictures']} images of {result['split']}; a is {a}, b is {b}", title_justify="left")
    table.add_column("metric")
    table.add_column("model", justify="right")
    for name, values in result["metrics"].items():
        table.add_row(name, format_score(values))
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
