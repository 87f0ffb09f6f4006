"""Translation of folders: which files are read and written, in which batches, and what happens on errors."""

import errno
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ganvas.cli.translate import translate_files
from ganvas.data.decode import read_image
from ganvas.data.encode import write_image
from ganvas.errors import UserError
from ganvas.files import write_error
from ganvas.inference import folder, translator
from ganvas.inference.batches import in_batches
from ganvas.inference.folder import translate_jobs
from ganvas.inference.tiling.plan import Tiling
from ganvas.inference.translator import Translator
from ganvas.models.folder import ModelConfig, NetworkSpec, Preprocessing
from ganvas.nn.unet import UNetGenerator

SPEC = NetworkSpec("unet", {}, "A", "B")


class Negative(nn.Module):
    """Inverts images and records batch sizes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return -x


def negative(channels=3, out=None, size="native", **preprocessing):
    how = Preprocessing(channels, out or channels, 32, resized=size == "trained", **preprocessing)
    return Translator(ModelConfig("pix2pix", {"a2b": SPEC}, how), {"a2b": Negative()}, precision="fp32")


def batch_sizes(model):
    return model._optimized[False].seen


def noise(seed, shape=(12, 10, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def images(tmp_path):
    """Seven images of two sizes, some in a subfolder."""
    for number, name in enumerate(("a", "b", "c", "sub/d", "sub/e", "sub/deeper/f", "g")):
        write_image(tmp_path / "in" / f"{name}.png", noise(number, (12, 10, 3) if number % 3 else (8, 9, 3)))
    return tmp_path / "in"


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_subfolders_and_names_are_kept_and_hidden_files_skipped(images, tmp_path):
    sources = names(images)
    for name in (".hidden.png", ".thumbnails/x.png", "sub/.y.png"):
        write_image(images / name, noise(9))
    written = negative().translate_folder(images, tmp_path / "out")
    assert names(tmp_path / "out") == sources
    assert written == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    for path in written:
        source = read_image(images / path.relative_to(tmp_path / "out"))
        assert np.array_equal(read_image(path), 255 - source)


def test_images_of_one_size_share_a_batch(images, tmp_path):
    model = negative()
    model.translate_folder(images, tmp_path / "out")
    assert sorted(batch_sizes(model)) == [3, 4]
    scaled = negative(size="trained")
    scaled.translate_folder(images, tmp_path / "scaled")
    assert batch_sizes(scaled) == [7]  # all are scaled to 32x32


@pytest.mark.parametrize(("norm", "statistics"), [("batch", "running"), ("batch", "picture"), ("instance", "running")])
def test_batches_do_not_change_the_results(images, tmp_path, norm, statistics):
    torch.manual_seed(0)
    network = UNetGenerator(base_channels=4, num_levels=3, norm=norm, dropout=0.5).eval()
    how = Preprocessing(3, 3, 32, resized=True)
    config = ModelConfig("pix2pix", {"a2b": SPEC}, how, statistics)
    model = Translator(config, {"a2b": network}, precision="fp32")
    for path in model.translate_folder(images, tmp_path / "out"):
        alone = model.translate(read_image(images / path.relative_to(tmp_path / "out")))
        assert np.abs(read_image(path).astype(int) - alone).max() <= 1
    floats = [np.random.default_rng(i).random((20, 24, 3), np.float32) for i in range(5)]
    together = model.translate(floats)
    assert max(np.abs(one - model.translate(source)).max() for one, source in zip(together, floats, strict=True)) < 1e-5
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_dropout_of_paper_is_the_same_for_each_image_and_leaves_the_callers_random_state_alone():
    network = UNetGenerator(base_channels=4, num_levels=3).eval()
    config = ModelConfig("pix2pix", {"a2b": SPEC}, Preprocessing(3, 3, 32, resized=True))
    model = Translator(config, {"a2b": network}, paper=True)
    both = [noise(0), noise(1)]
    assert all(np.array_equal(a, model.translate(b)) for a, b in zip(model.translate(both), both, strict=True))
    state = torch.get_rng_state()
    model.translate(both[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_existing_results_are_skipped_unless_overwrite_is_set(images, tmp_path):
    model, out = negative(), tmp_path / "out"
    write_image(out / "a.png", noise(99))
    assert len(model.translate_folder(images, out)) == 7
    assert np.array_equal(read_image(out / "a.png"), noise(99))
    assert sum(batch_sizes(model)) == 6
    model.translate_folder(images, out, overwrite=True)
    assert np.array_equal(read_image(out / "a.png"), 255 - read_image(images / "a.png"))
    assert sum(batch_sizes(model)) == 6 + 7
    jobs = model.find_jobs(images, out)
    assert (len(jobs.existing), jobs.todo, jobs.failed) == (7, [], [])


def test_an_existing_result_in_another_format_is_skipped_too(images, tmp_path):
    model = negative(target_range=(0, 9000), target_type="float32")
    written = model.translate_folder(images, tmp_path / "out")
    assert {path.suffix for path in written} == {".tif"}
    assert model.find_jobs(images, tmp_path / "out").todo == []


def test_two_sources_with_the_same_result_are_an_error(images, tmp_path):
    model = negative(target_range=(0, 9000), target_type="float32")
    write_image(images / "a.jpg", noise(3))
    with pytest.raises(
        UserError, match=r"1 of 8 images failed:\n.*a\.png: its result would have the same name as that of"
    ):
        model.translate_folder(images, tmp_path / "out")
    assert len(names(tmp_path / "out")) == 7


def test_a_single_image_is_always_translated(images, tmp_path):
    out = tmp_path / "a.png"
    write_image(out, noise(99))
    negative().translate_folder(images / "a.png", out)
    assert np.array_equal(read_image(out), 255 - read_image(images / "a.png"))


def test_unreadable_images_are_reported_after_the_others_are_done(images, tmp_path, capsys):
    (images / "bad.jpg").write_bytes(b"no image")
    cut = (images / "b.png").read_bytes()
    (images / "sub" / "cut.png").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(UserError) as failure:
        translate_files(negative(), images, tmp_path / "out", as_json=True)
    assert str(failure.value).startswith("2 of 9 images failed:\n")
    assert "bad.jpg: is not a readable image" in str(failure.value)
    assert "cut.png: cannot be decoded" in str(failure.value)
    summary = json.loads(capsys.readouterr().out)
    assert (len(summary["written"]), summary["skipped"], summary["left"]) == (7, [], 0)
    assert len(summary["failed"]) == 2
    assert 0 < summary["seconds"] < 60
    assert len(names(tmp_path / "out")) == 7


def test_a_full_disk_stops_with_one_message_and_keeps_finished_results(images, tmp_path, monkeypatch):
    written = []

    def write(path, image, tags):
        if len(written) == 2:
            raise write_error(path, OSError(errno.ENOSPC, "No space left on device"))
        written.append(path)
        write_image(path, image, tags)

    monkeypatch.setattr(translator, "write_image", write)
    monkeypatch.setattr(folder, "WRITERS", 1)
    result = translate_jobs(negative(), negative().find_jobs(images, tmp_path / "out"))
    assert (len(result.written), len(result.failed), result.left) == (2, 1, 4)
    with pytest.raises(UserError, match=r"1 of 7 images failed:\n.*No space left.*\n4 more were not tried"):
        result.raise_failures()
    assert len(names(tmp_path / "out")) == 2
    monkeypatch.undo()
    assert len(negative().translate_folder(images, tmp_path / "out")) == 7


def test_an_image_that_its_format_cannot_store_does_not_stop_the_others(images, tmp_path, monkeypatch):
    def write(path, image, tags):
        if path.stem == "a":
            raise UserError(f"{path}: the format does not hold this image.")
        write_image(path, image, tags)

    monkeypatch.setattr(translator, "write_image", write)
    with pytest.raises(UserError, match=r"1 of 7 images failed:\n.*a\.png: the format does not hold"):
        negative().translate_folder(images, tmp_path / "out")
    assert len(names(tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("in", "in", "is the input folder"),
        ("in", "in/sub/../", "is the input folder"),
        ("in", "in/out", "is inside the input folder"),
        ("in", "in/sub", "is inside the input folder"),
        ("in/sub", "in", None),
        ("in/in", "in", "would be inside the input folder"),
        ("in/a.png", "in/a.png", "is the source image"),
        ("in/a.png", "in", "is the source image"),
        ("in", "in/a.png", "is inside the input folder"),
        ("in", "file", "is a file"),
        ("empty", "out", "holds no images"),
        ("nowhere", "out", "there is no such folder"),
    ],
)
def test_results_are_not_written_among_the_sources(images, tmp_path, monkeypatch, source, target, message):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "in" / "in" / "in" / "x.png", noise(5))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    before = names(tmp_path)
    if message is None:
        negative().translate_folder(source, target)
        return
    with pytest.raises(UserError, match=message):
        negative().translate_folder(source, target)
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["out.gif", "out.GIF", "out.pngg", "out.v2"])
def test_a_single_image_is_not_written_in_an_unsupported_format(images, tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}: \.\w+ images cannot be written"):
        negative().translate_folder(images / "a.png", tmp_path / name)
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert negative().translate_folder(images / "a.png", tmp_path / name) == [tmp_path / name / "a.png"]


@pytest.mark.parametrize("name", ["out", "v1.0", ".out"])
def test_a_single_image_is_written_into_a_folder_if_the_name_has_no_suffix(images, tmp_path, name):
    assert negative().translate_folder(images / "a.png", tmp_path / name) == [tmp_path / name / "a.png"]


@pytest.mark.parametrize("name", ["y.png", "y.TIF", "y.gif"])
def test_no_folder_is_created_with_the_name_of_an_image(images, tmp_path, name):
    with pytest.raises(UserError, match=rf"{name}: is the name of an image file"):
        negative().translate_folder(images, tmp_path / name)
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    assert len(negative().translate_folder(images, tmp_path / name)) == 7
    assert len(negative().translate_folder(images, tmp_path / "out.v2")) == 7


def test_a_link_to_the_input_folder_is_the_input_folder(images, tmp_path):
    (tmp_path / "link").symlink_to(images, target_is_directory=True)
    with pytest.raises(UserError, match="is the input folder"):
        negative().translate_folder(images, tmp_path / "link")


def test_tiles_are_computed_in_float32(images, tmp_path):
    model = negative()
    model.precision = "bf16"
    with pytest.raises(UserError, match="--precision bf16: tiles are computed in fp32"):
        translate_files(model, images, tmp_path / "out", as_json=True, tiling=Tiling(64, 8))


def test_tiles_keep_subfolders_and_skip_existing_results(images, tmp_path, capsys):
    write_image(tmp_path / "out" / "a.png", noise(99))
    assert translate_files(negative(), images, tmp_path / "out", as_json=True, tiling=Tiling(64, 8)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (len(summary["written"]), len(summary["tiled"]), len(summary["skipped"])) == (6, 6, 1)
    assert names(tmp_path / "out") == names(images)


def test_an_infinite_seam_ratio_is_null_in_json(tmp_path, capsys):
    halves = np.repeat(np.uint8([[0, 200]]), 32, axis=1).repeat(40, axis=0)[:, :, None]
    write_image(tmp_path / "x.png", halves)
    translate_files(negative(1), tmp_path / "x.png", tmp_path / "y.png", as_json=True, tiling=Tiling(32, 0))
    (one,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["tiled"]
    assert (one["tiles"], one["seam"]) == (4, None)
    assert np.array_equal(read_image(tmp_path / "y.png"), 255 - halves)


def test_the_summary_counts_skipped_images(images, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        translate_files(negative(), images, tmp_path / "out", as_json=False)
    assert capsys.readouterr().out == ""
    first, second = caplog.messages
    assert first == f"7 images written to {tmp_path / 'out'}"
    assert second.startswith("0 images written to ")
    assert "7 existed already (--overwrite" in second


def test_batches_are_full_or_the_oldest_or_the_last():
    def batches(items, size, waiting=100):
        return list(in_batches(items, lambda item: SimpleNamespace(batch_key=item.lower()), lambda _: size, waiting))

    assert batches("aBAbaA", 2) == [["a", "A"], ["B", "b"], ["a", "A"]]
    assert batches("abc", 2) == [["a"], ["b"], ["c"]]
    assert batches("abAcb", 9, waiting=3) == [["a", "A"], ["b", "b"], ["c"]]
    assert batches("", 2) == []
