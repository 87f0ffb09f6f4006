"""What the commands evaluate and receptive-field do; the options come from ``pix2pix.__main__``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from ganvas.cli.receptive_field import ReceptiveFieldOptions, run
from ganvas.data.encoding import require_output_folder
from ganvas.data.images import format_supports, require_image_suffix, to_array, to_tensor, write_image
from ganvas.data.listing import describe_unread
from ganvas.data.paired import PairedDataset, dataset_info
from ganvas.device import choose_device
from ganvas.evaluation.baseline import MedianColours
from ganvas.evaluation.metrics import PATCH_SIZE, l1, psnr, sliced_wasserstein, ssim
from ganvas.evaluation.results import FEWEST_FOR_INTERVAL, NO_INTERVAL, format_score, keep_with_run, mean_and_interval
from ganvas.evaluation.sheet import contact_sheet
from ganvas.files import require_writable
from ganvas.inference.translator import Translator
from ganvas.models.folder import load_model
from ganvas.nn.patchgan import PatchDiscriminator, PixelDiscriminator
from ganvas.nn.unet import UNetGenerator

if TYPE_CHECKING:
    from pix2pix.__main__ import Evaluate

PER_PICTURE = {"l1": l1, "psnr": psnr, "ssim": ssim}
SHEET_ROWS = 8
NO_DISTANCE = (
    f"No sliced Wasserstein distance: it needs images of one size, of at least {PATCH_SIZE} pixels a side. "
    "`python -m data_scripts resize` makes them so."
)


def run_evaluate(options: "Evaluate") -> int:
    """Score a model on a split, beside the trivial baseline where the dataset tells its legend.

    Raises:
        UserError: No model, no pairs, or images that cannot be read.
    """
    if options.sheet is not None:
        require_image_suffix(options.sheet)
        require_writable(options.sheet)
    if options.out is not None:
        require_output_folder(options.out)
    config, generators = load_model(options.model, ("pix2pix",))
    translator = Translator(config, generators, device=choose_device(options.device))
    pairs = _open_pairs(translator, options.data, options.split)
    info = dataset_info(options.data)
    names, sources, targets, outputs = [], [], [], []
    how = translator.preprocessing
    progress = Console(stderr=True)
    if unread := describe_unread(pairs.pairs.unread):
        progress.print(unread, soft_wrap=True, markup=False)
    for index in track(range(len(pairs)), "translating", console=progress, disable=len(pairs) < 2):
        source, target = pairs.pair(index)
        translator.require_values(source, Path(str(pairs.pairs[index].a)))
        names.append(pairs.name(index))
        sources.append(source)
        targets.append(to_tensor(target, how.target_range))
        outputs.append(translator.translate_exactly(source))

    result: dict[str, Any] = {
        "model": str(options.model),
        "data": str(options.data),
        "split": options.split,
        "pictures": len(pairs),
    }
    scores = _score(outputs, targets)
    result["metrics"] = _summary(scores) | _distance(outputs, targets)
    result["per_picture"] = [
        {"name": name, **{metric: float(values[i]) for metric, values in scores.items()}}
        for i, name in enumerate(names)
    ]
    baseline = _baseline(info, translator, sources, targets)
    if baseline is not None:
        their_scores = _score(baseline, targets)
        result["baseline"] = _summary(their_scores) | _distance(baseline, targets)
        result["l1_minus_baseline"] = mean_and_interval(scores["l1"] - their_scores["l1"])
    notes = [] if "sliced_wasserstein" in result["metrics"] else [NO_DISTANCE]
    notes += [NO_INTERVAL] if len(pairs) < FEWEST_FOR_INTERVAL else []
    if notes:
        result["notes"] = notes
        progress.print("\n".join(notes), soft_wrap=True)
    if options.json:
        print(json.dumps(result))
    else:
        _print_scores(result)

    # Write files, now that no full disk can take the figures.
    if options.out is not None:
        for name, output, source in zip(names, outputs, sources, strict=True):
            picture = translator.as_picture(output, source.dtype)
            exactly = how.target_range is not None
            suffix = ".png" if format_supports(".png", picture, exactly=exactly) else ".tif"
            write_image(options.out / f"{name}{suffix}", picture)
    if options.sheet is not None:
        write_image(options.sheet, _sheet(translator, sources, outputs, targets))
    keep_with_run(options.model, result)
    return 0


def _open_pairs(translator: Translator, data: Path, split: str) -> PairedDataset:
    how = translator.preprocessing
    return PairedDataset(
        data,
        split,
        augmentation=None,
        direction="a2b" if "a2b" in translator.config.networks else "b2a",
        source_channels=how.source_channels,
        target_channels=how.target_channels,
        source_range=how.source_range,
        target_range=how.target_range,
        sources=how.source_folders,
        target=how.target_folder,
    )


def _score(outputs: list[Tensor], targets: list[Tensor]) -> dict[str, np.ndarray]:
    """Score each image by each metric."""
    pairs = list(zip(outputs, targets, strict=True))
    return {
        name: np.array([metric(output[None], target[None]).item() for output, target in pairs])
        for name, metric in PER_PICTURE.items()
    }


def _summary(scores: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return {name: mean_and_interval(values) for name, values in scores.items()}


def _distance(outputs: list[Tensor], targets: list[Tensor]) -> dict[str, dict[str, float]]:
    """Compare patch statistics of the whole set; only sets of one image size, not tiny, have them."""
    if len({tuple(target.shape) for target in targets}) > 1 or min(targets[0].shape[-2:]) < PATCH_SIZE:
        return {}
    return {"sliced_wasserstein": {"mean": sliced_wasserstein(torch.stack(outputs), torch.stack(targets)).mean}}


def _baseline(
    info: Mapping[str, Any], translator: Translator, sources: list[np.ndarray], targets: list[Tensor]
) -> list[Tensor] | None:
    """Predict by the trivial baseline, where the source is the drawn domain whose legend the dataset tells."""
    if "legend" not in info or "a2b" not in translator.config.networks or translator.preprocessing.source_range:
        return None
    arrays = [to_array(target, np.uint8) for target in targets]
    colours = MedianColours.fit(sources, arrays, info["legend"])
    return [to_tensor(colours.predict(source)) for source in sources]


def _sheet(
    translator: Translator, sources: list[np.ndarray], outputs: list[Tensor], targets: list[Tensor]
) -> np.ndarray:
    spec = next(iter(translator.config.networks.values()))
    chosen = np.unique(np.linspace(0, len(sources) - 1, min(SHEET_ROWS, len(sources))).round().astype(int))
    shown = [to_tensor(sources[i], translator.preprocessing.source_range) for i in chosen]
    rows = [
        [to_array(picture, np.uint8) for picture in (source, outputs[i], targets[i])]
        for i, source in zip(chosen, shown, strict=True)
    ]
    return contact_sheet(rows, [spec.source, "output", spec.target])


def _print_scores(result: Mapping[str, Any]) -> None:
    table = Table(title=f"{result['pictures']} images of {result['split']}", title_justify="left")
    table.add_column("metric")
    table.add_column("model", justify="right")
    if "baseline" in result:
        table.add_column("median colors", justify="right")
    for name in result["metrics"]:
        table.add_row(name, *(format_score(result[key][name]) for key in ("metrics", "baseline") if key in result))
    console = Console(markup=False)
    console.print(table)
    if "l1_minus_baseline" in result:
        console.print(f"L1 minus the baseline's, by image: {format_score(result['l1_minus_baseline'])}")


def run_receptive_field(options: ReceptiveFieldOptions) -> int:
    """Print the fields of D, which sees source and target, and of the U-Net."""
    run(options, _networks)
    return 0


def _networks(num_layers: int) -> Mapping[str, nn.Module]:
    with torch.device("meta"):
        discriminator = PatchDiscriminator(6, num_layers=num_layers) if num_layers else PixelDiscriminator(6)
        return {"discriminator": discriminator, "generator": UNetGenerator()}
