"""The command ``evaluate``: prints what a module's `evaluate` returns. Nothing heavy is imported before parsing."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ganvas.errors import UserError
from ganvas.evaluation.names import DEFAULT, metric_options
from ganvas.options import optional

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from ganvas.evaluation.labels import MetricLabel
    from ganvas.evaluation.results import EvaluatedImage


@dataclass(frozen=True)
class EvaluateOptions:
    """How every translator is evaluated.

    Attributes:
        model: A run, a checkpoint or a model folder.
        data: The dataset.
        split: Which of its splits.
        metrics: Names with commas between them: l1, psnr, ssim, ms-ssim, lpips, swd, fid, kid, sharpness, spectrum
            (docs/metrics.md). lpips, fid and kid download weights the first time.
        feature_weights: Feature network for fid and kid instead of Inception v3: a TorchScript file, uint8 images
            [N, 3, 299, 299] to [N, D]. TorchScript can run code: name only files that you trust.
        lpips_weights: Network for lpips instead of AlexNet: a TorchScript file of two images in [-1, 1]; see above.
        kid_subset_size: Images in each of kid's subsets; by default 1000, or all if there are fewer.
        sheet: Write a contact sheet of sources, translations and targets to this PNG.
        device: Where to compute.
        json: Print one JSON object on standard output and nothing else there.
    """

    model: tyro.conf.Positional[Path]
    data: Path
    split: Literal["train", "val", "test"] = "test"
    metrics: str = ",".join(DEFAULT)
    feature_weights: Annotated[Path | None, optional("FILE")] = None
    lpips_weights: Annotated[Path | None, optional("FILE")] = None
    kid_subset_size: Annotated[int | None, optional("INT")] = None
    sheet: Annotated[Path | None, optional("PNG")] = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    json: bool = False


def run_evaluate(
    options: EvaluateOptions, evaluate: Callable[..., dict[str, Any]], *, sheet_rows: int, out: Path | None = None
) -> int:
    """Evaluate a model, print the scores, and write the files that were asked for.

    Args:
        options: The command's options.
        evaluate: The module's function, such as `pix2pix.evaluate`.
        sheet_rows: Most rows of the sheet, of each direction.
        out: Folder for the translations.

    Raises:
        UserError: As ``evaluate``, or a file cannot be written; then the scores have been printed.
    """
    from ganvas.data.encode import require_image_suffix
    from ganvas.data.formats import require_output_folder
    from ganvas.evaluation.results import keep_with_run
    from ganvas.files import require_writable
    from ganvas.log import logger

    metrics = metric_options(
        options.metrics,
        feature_weights=options.feature_weights,
        lpips_weights=options.lpips_weights,
        kid_subset_size=options.kid_subset_size,
    )
    if options.sheet is not None:
        require_image_suffix(options.sheet)
        require_writable(options.sheet)
    if out is not None:
        require_output_folder(out)
    images = _Images(0 if options.sheet is None else sheet_rows, out)
    result = evaluate(
        options.model,
        data=options.data,
        split=options.split,
        metrics=metrics,
        device=options.device,
        on_image=images.add,
    )
    if notes := result.get("notes"):
        logger.info("\n".join(notes))
    if options.json:
        print(json.dumps(result))
    else:
        _print_scores(result, options.data)
    images.finish(options.sheet)
    keep_with_run(options.model, result)
    return 0


class _Images:
    """Collects the rows of a sheet and writes translations to files, image by image.

    The first failure to write is raised at the end: a full disk must not cost the scores, which take long.

    Args:
        sheet_rows: Rows of the sheet, of each direction.
        folder: Where translations are written; None for nowhere.
    """

    def __init__(self, sheet_rows: int, folder: Path | None) -> None:
        self._sheet_rows, self._folder = sheet_rows, folder
        self._titles: list[str] = []
        self._rows: list[list[np.ndarray]] = []
        self._failure: UserError | None = None

    def add(self, image: "EvaluatedImage") -> None:
        import numpy as np

        from ganvas.data.encode import write_image
        from ganvas.data.tensors import to_array
        from ganvas.evaluation.sheet import evenly

        if image.index in evenly(image.count, self._sheet_rows):
            self._titles = [title for title, _ in image.columns]
            self._rows.append([to_array(shown, np.uint8) for _, shown in image.columns])
        if self._folder is not None and image.file is not None and self._failure is None:
            name, pixels = image.file
            try:
                write_image(self._folder / name, pixels)
            except UserError as error:
                self._failure = error

    def finish(self, sheet: Path | None) -> None:
        """Raise the failure, if there was one; write the sheet."""
        from ganvas.data.encode import write_image
        from ganvas.evaluation.sheet import contact_sheet

        if self._failure is not None:
            raise self._failure
        if sheet is not None:
            write_image(sheet, contact_sheet(self._rows, self._titles))


def _print_scores(result: Mapping[str, Any], data: Path) -> None:
    from ganvas.data.dataset_info import dataset_info, domain_names
    from ganvas.evaluation.results import format_score

    a, b = domain_names(dataset_info(data))
    title = f"{result['pictures']} images of {result['split']}; a is {a}, b is {b}"
    columns = {"model": result["metrics"], "median colors": result.get("baseline"), "real images": result.get("real")}
    console = print_table(title, {name: scores for name, scores in columns.items() if scores})
    for name, scores in result.get("baselines", {}).items():
        console.print(f"{name}: " + ", ".join(f"{metric} {value:.4f}" for metric, value in scores.items()))
    if "l1_minus_baseline" in result:
        console.print(f"L1 minus the baseline's, by image: {format_score(result['l1_minus_baseline'])}")


def print_table(
    title: str, columns: Mapping[str, Mapping[str, Mapping[str, float]]], labels: Mapping[str, "MetricLabel"] = {}
) -> "Console":
    """Print scores, a row for each metric of the first column; return the console, for notes below the table.

    Args:
        title: Above the table.
        columns: Scores by metric, by the title of their column.
        labels: How metrics are shown; those without a label by their key, with four decimals.
    """
    from rich.console import Console
    from rich.table import Table

    from ganvas.evaluation.results import format_score

    table = Table("metric", title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    for metric in next(iter(columns.values()), {}):
        label = labels.get(metric)
        name = metric if label is None else label.text + (f" ({label.better} is better)" if label.better else "")
        scores = (each.get(metric) for each in columns.values())
        decimals = 4 if label is None else label.decimals
        table.add_row(name, *("" if score is None else format_score(score, decimals) for score in scores))
    console = Console(highlight=False, markup=False)
    console.print(table)
    return console
