"""The command ``translate`` of the modules: files in, files out."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ganvas.data.images import IMAGE_SUFFIXES, list_images
from ganvas.errors import UserError
from ganvas.inference.tiles import TiledResult, Tiling, translate_tiled
from ganvas.inference.translator import Translator


def translate_files(
    translator: Translator, source: Path, target: Path, *, as_json: bool, tiling: Tiling | None = None
) -> int:
    """Translate a file or a folder; all good pictures are done before a bad one is complained of.

    Args:
        translator: The model.
        source: A picture or a folder of pictures.
        target: A folder, where names are kept; or a file's name, for one picture.
        as_json: Print one JSON object on standard output.
        tiling: Translate in tiles, cut like this; the translator's size has to be native.

    Raises:
        UserError: No pictures, or pictures that could not be read or written.
    """
    if tiling is not None:
        tiling.check(translator.network)
    jobs = _jobs(_source_folder(source, translator), target)
    done, failures = [], []
    tiled: list[TiledResult] = []
    for picture, translation in track(jobs, "translating", console=Console(stderr=True), disable=len(jobs) < 2):
        try:
            if tiling is None:
                done.append(translator.translate_file(picture, translation))
            else:
                tiled.append(translate_tiled(translator, picture, translation, tiling))
                done.append(tiled[-1].path)
        except UserError as error:
            failures.append(str(error))
    if as_json:
        tiles = {"tiled": [asdict(result) | {"path": str(result.path)} for result in tiled]} if tiling else {}
        print(json.dumps({"written": [str(path) for path in done], "failed": failures} | tiles))
    else:
        console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        for result in tiled:
            console.print(result.describe())
        console.print(f"{len(done)} pictures written to {target}")
    if failures:
        raise UserError(f"{len(failures)} of {len(jobs)} pictures failed:\n  " + "\n  ".join(failures))
    return 0


def _source_folder(source: Path, translator: Translator) -> Path:
    """Give the folder whose pictures are listed: the first of those that are stacked, where the model takes several."""
    folders = translator.preprocessing.source_folders
    if folders and not (source / folders[0]).is_dir():
        raise UserError(
            f"{source}: the model takes {len(folders)} pictures at once. Give the folder that holds their folders "
            f"{', '.join(folders)}."
        )
    return source / folders[0] if folders else source


def _jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pair every input with its output: a folder keeps names, a single picture may be given a name."""
    if source.is_dir():
        files = list_images(source)
        if not files:
            raise UserError(f"{source}: holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        if target.exists() and target.resolve() == source.resolve():
            raise UserError(f"{target}: is the input folder. Give another one, so that no source is overwritten.")
    elif source.is_file():
        files = [source]
    else:
        raise UserError(f"{source}: there is no such file or folder.")
    if source.is_file() and target.suffix.lower() in IMAGE_SUFFIXES:
        folder, names = target.parent, [target.name]
    else:
        folder, names = target, [file.name for file in files]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file. Give a folder for the output.")
    folder.mkdir(parents=True, exist_ok=True)
    return [(file, folder / name) for file, name in zip(files, names, strict=True)]
