"""Images from named sets and folders, and conversion for the network and back."""

import socket

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dcgan.data import ImageSet, ImageSetDataset, choose, leave_out, load_images, to_network, to_uint8
from ganvas.data.encode import write_image
from ganvas.errors import UserError


def test_mnist_by_its_files(digits):
    data = load_images("mnist", root=digits)
    assert data.images.shape == (200, 1, 28, 28)
    assert data.images.dtype == torch.uint8
    assert data.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert load_images("mnist", "test", root=digits).images.shape[0] == 100
    for label in range(10):  # the bar of the class, from its own file
        assert (data.images[label, 0, 10, 4 + 2 * label] > 150).all()


def test_the_root_is_ganvas_data(digits, monkeypatch):
    monkeypatch.setenv("GANVAS_DATA", str(digits))
    assert load_images("mnist").digest == load_images("mnist", root=digits).digest


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.slow
def test_published_datasets(published_data, name):
    for split, count in (("train", 60_000), ("test", 10_000)):
        data = load_images(name, split, root=published_data)
        assert data.images.shape == (count, 1, 28, 28)
        assert sorted(set(data.labels.tolist())) == list(range(10))
    if name == "mnist":
        assert data.labels[:5].tolist() == [7, 2, 1, 0, 4]  # as everybody knows
    else:
        assert data.classes[data.labels[0]] == "ankle boot"


@pytest.mark.slow
def test_mnist5k_is_split_evenly_and_needs_no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    train, test = load_images("mnist5k"), load_images("mnist5k", "test")
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    seen = {image.numpy().tobytes() for image in train.images}
    assert not [1 for image in test.images if image.numpy().tobytes() in seen]


def test_sizes_of_named_sets(digits):
    own = load_images("mnist", root=digits).images
    padded = load_images("mnist", root=digits, image_size=32).images
    assert torch.equal(padded[:, :, 2:-2, 2:-2], own)
    assert padded.sum() == own.sum()
    for size, channels in ((16, 1), (64, 3)):
        scaled = load_images("mnist", root=digits, image_size=size, channels=channels).images
        assert scaled.shape == (200, channels, size, size)
        assert scaled.float().mean().item() == pytest.approx(own.float().mean().item(), rel=0.05)
    color = load_images("mnist", root=digits, channels=3).images
    assert all(torch.equal(color[:, channel], own[:, 0]) for channel in range(3))


def test_a_folder_of_classes(folder_writer, tmp_path):
    data = load_images(str(folder_writer(tmp_path / "set", classes=2, each=3)))
    assert data.classes == ("class-0", "class-1")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.images.shape == (6, 3, 16, 16)
    assert (data.images[0, 0] >= 200).all()  # class 0 is red


def test_a_flat_folder_has_no_labels(tmp_path):
    for i in range(3):
        Image.new("L", (16, 16), 50 * i).save(tmp_path / f"{i}.png")
    data = load_images(str(tmp_path))
    assert data.labels is None
    assert data.images[:, 0, 0, 0].tolist() == [0, 50, 100]


def test_splits_of_a_folder(folder_writer, tmp_path):
    folder_writer(tmp_path / "set" / "train", each=4)
    folder_writer(tmp_path / "set" / "test", each=2)
    assert [len(load_images(str(tmp_path / "set"), split).images) for split in ("train", "test")] == [12, 6]


def test_images_are_cropped_and_scaled_when_a_size_is_asked_for(tmp_path):
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 200  # the middle square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.new("L", (64, 64), 200).save(tmp_path / "gray.png")
    data = load_images(str(tmp_path), image_size=16)
    assert data.images.shape == (2, 3, 16, 16)
    assert (data.images == 200).all()
    assert load_images(str(tmp_path), image_size=16, channels=1).images.shape == (2, 1, 16, 16)


def test_16_bit_images_keep_their_brightness(tmp_path):
    Image.fromarray(np.full((16, 16), 200 * 257, np.uint16)).save(tmp_path / "deep.png")
    assert (load_images(str(tmp_path)).images == 200).all()


@pytest.mark.parametrize("image_size", [None, 16])
def test_images_of_many_channels(tmp_path, image_size):
    values = np.arange(20 * 20 * 5, dtype=np.uint8).reshape(20, 20, 5) // 5 * 5 + np.arange(5, dtype=np.uint8)
    for name in ("a.tif", "b.npy"):
        write_image(tmp_path / name, values)
    images = load_images(str(tmp_path), image_size=image_size).images
    assert images.shape == (2, 5, image_size or 20, image_size or 20)
    if image_size is None:
        np.testing.assert_array_equal(images[0].permute(1, 2, 0), values)


def test_floats_are_taken_from_0_to_1(tmp_path):
    np.save(tmp_path / "a.npy", np.float32([[0, 0.2], [0.5, 1]]))
    assert load_images(str(tmp_path)).images.flatten().tolist() == [0, 51, 128, 255]


def test_choice_is_random_and_reproducible():
    chosen = choose(1000, 300)
    assert len(set(chosen.tolist())) == 300
    assert torch.equal(chosen, choose(1000, 300))
    assert 400 < chosen.float().mean() < 600
    assert sorted(choose(7, 300).tolist()) == list(range(7))


class TestBadInput:
    def check(self, messages, *arguments, **options):
        with pytest.raises(UserError) as caught:
            load_images(*map(str, arguments), **options)
        for message in messages:
            assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("mnits", "mnist"),
            ("MNIST", "mnist"),
            ("MNIST5K", "mnist5k"),
            ("fashion", "fashion-mnist"),
            ("FashionMNIST", "fashion-mnist"),
            ("fashion_mnist", "fashion-mnist"),
        ],
    )
    def test_a_name_that_does_not_exist(self, name, nearest):
        self.check([f"--data {name}", "no folder", f"Did you mean {nearest}?"], name)

    def test_mixed_sizes(self, tmp_path):
        for i, size in enumerate([(16, 16), (16, 16), (20, 16)]):
            Image.new("L", size).save(tmp_path / f"{i}.png")
        self.check(["2 images are 16 x 16", "2.png is not", "--image-size"], tmp_path)

    def test_mixed_sizes_of_classes_name_the_class(self, folder_writer, tmp_path):
        folder = folder_writer(tmp_path / "set", classes=2, each=2)
        Image.new("RGB", (20, 20)).save(folder / "class-1" / "0.png")
        self.check([f"{folder}: 3 images are 16 x 16", "class-1", "0.png is not"], folder)

    @pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (0, float("nan"))])
    def test_floats_out_of_range(self, tmp_path, low, high):
        np.save(tmp_path / "a.npy", np.float32([[low, high], [low, low]]))
        self.check(["a.npy: has values from", "floats from 0 to 1"], tmp_path)

    def test_channels_that_do_not_fit(self, tmp_path, digits):
        write_image(tmp_path / "five.tif", np.zeros((16, 16, 5), np.uint8))
        self.check(["1 have 5 (five.tif) channels, and 3 are expected", "--channels"], tmp_path, channels=3)
        write_image(tmp_path / "one.png", np.zeros((16, 16, 1), np.uint8))
        self.check(["1 have 1 (one.png), 1 have 5 (five.tif) channels, and 5 are expected"], tmp_path)
        self.check(["--channels 2: mnist is gray"], "mnist", root=digits, channels=2)

    def test_no_squares(self, tmp_path):
        Image.new("L", (20, 16)).save(tmp_path / "a.png")
        self.check(["20 x 16", "squares"], tmp_path)

    def test_empty(self, tmp_path):
        self.check(["holds no images"], tmp_path)

    def test_images_beside_classes(self, folder_writer, tmp_path):
        folder_writer(tmp_path / "set")
        Image.new("L", (16, 16)).save(tmp_path / "set" / "stray.png")
        self.check(["stray.png", "class-0", "into the folder of its class"], tmp_path / "set")

    def test_no_test_split(self, folder_writer, tmp_path):
        self.check(["no folder 'test'"], folder_writer(tmp_path / "set"), "test")

    def test_a_broken_image(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
        self.check(["a.png"], tmp_path)

    def test_everything_left_out(self, digits):
        with pytest.raises(UserError, match="--leave-out 200: mnist has 200 images"):
            leave_out(load_images("mnist", root=digits), 200)


def test_leaving_out_the_first(digits):
    data = load_images("mnist", root=digits)
    rest = leave_out(data, 5)
    assert torch.equal(rest.images, data.images[5:])
    assert torch.equal(rest.labels, data.labels[5:])
    assert rest.digest == data.digest


@pytest.mark.parametrize("labelled", [True, False])
def test_leaving_out_of_a_set_sorted_by_class_leaves_all_classes(labelled):
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1).expand(-1, 1, 16, 16)
    labels = torch.arange(200) // 20 if labelled else None
    data = ImageSet(images, labels, tuple("0123456789") if labelled else (), "folder sorted", "")
    rest = leave_out(data, 60)
    kept = rest.images[:, 0, 0, 0].long()
    assert len(kept.unique()) == len(kept) == 140
    assert (kept // 20).bincount().min() >= 7
    assert torch.equal(rest.images, leave_out(data, 60).images)
    assert (rest.labels is None) if not labelled else torch.equal(rest.labels, kept // 20)


@given(st.sampled_from(["signed", "unit"]))
def test_every_byte_comes_back(pixel_range):
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = to_network(every, pixel_range)
    assert (scaled.min(), scaled.max()) == ((-1, 1) if pixel_range == "signed" else (0, 1))
    assert torch.equal(to_uint8(scaled, pixel_range), every)


def test_values_outside_the_range_are_clipped():
    assert to_uint8(torch.tensor([-1.0, 0.5, 2.0]), "unit").tolist() == [0, 128, 255]


def test_a_batch_equals_its_single_images(digits):
    data = load_images("mnist", root=digits)
    dataset = ImageSetDataset(data, "signed")
    keys = [(0, 7), (3, 199), (0, 0)]
    for key, sample in zip(keys, dataset.__getitems__(keys), strict=True):
        assert torch.equal(sample["image"], dataset[key]["image"])
        assert torch.equal(sample["image"], data.images[key[1]].float() / 127.5 - 1)
        assert sample["label"] == data.labels[key[1]]


def test_the_digest_follows_pixels_and_labels(digits):
    data = load_images("mnist", root=digits)
    assert data.digest == load_images("mnist", root=digits).digest
    others = {
        load_images("mnist", "test", root=digits).digest,
        load_images("mnist", root=digits, image_size=32).digest,
    }
    assert len(others | {data.digest}) == 3
    assert isinstance(data, ImageSet)
