import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dcgan.__main__ import main
from dcgan.data import FASHION
from dcgan.grid import GAP
from dcgan.model import load_sampler
from dcgan.sample import DURATION, LAST_FRAME, MAX_FRAMES, interpolated_latents, slerp

SCALE = 2  # of 28 pixels


@pytest.fixture(scope="session")
def models(save_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "plain": save_model(folder / "plain"),
        "color": save_model(folder / "color", channels=3),
        "labels": save_model(folder / "labels", num_classes=10),
        "fashion": save_model(folder / "fashion", num_classes=10, classes=FASHION, data="fashion-mnist"),
        "swapped": save_model(folder / "swapped", num_classes=3, classes=("one", "two", "1"), data="own"),
        "uniform": save_model(folder / "uniform", latent="uniform"),
    }


@pytest.fixture
def sample(tmp_path, capsys):
    """Run ``dcgan sample``; give the image and what was printed as JSON."""

    def run(model, *arguments, name="out.png"):
        assert main(["sample", str(model), str(tmp_path / name), "--device", "cpu", "--json", *arguments]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["written"] == str(tmp_path / name)
        return Image.open(io.BytesIO((tmp_path / name).read_bytes())), result

    return run


@pytest.fixture
def refusal(tmp_path, capsys):
    """Run ``dcgan sample`` and give its complaint."""

    def run(model, *arguments, name="out.png"):
        assert main(["sample", str(model), str(tmp_path / name), "--device", "cpu", *arguments]) == 2
        assert not (tmp_path / name).exists()
        return capsys.readouterr().err

    return run


def cut(sheet, rows, cols):
    """Cut a grid of 28-pixel images back into [rows, cols, 28, 28] or [..., 3]."""
    small = np.asarray(sheet)[::SCALE, ::SCALE]
    assert small.shape[:2] == (rows * 29 - 1, cols * 29 - 1)
    np.testing.assert_array_equal(small.repeat(SCALE, axis=0).repeat(SCALE, axis=1), np.asarray(sheet))
    return np.stack([[small[r * 29 :][:28, c * 29 :][:, :28] for c in range(cols)] for r in range(rows)])


@pytest.mark.parametrize(("model", "mode"), [("plain", "L"), ("color", "RGB")])
def test_grid_holds_what_the_sampler_draws(models, sample, model, mode):
    sheet, result = sample(models[model], "--rows", "2", "--cols", "3", "--seed", "5")
    assert sheet.mode == mode
    assert (result["rows"], result["cols"], result["scale"], result["labels"]) == (2, 3, SCALE, None)
    drawn = load_sampler(models[model]).sample(6, seed=5).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(cut(sheet, 2, 3).reshape(drawn.shape), drawn)
    assert len(np.unique(drawn.reshape(6, -1), axis=0)) == 6
    assert (np.asarray(sheet)[28 * SCALE] == GAP).all()


def test_seed_determines_the_images(models, sample):
    size = ("--rows", "2", "--cols", "2")
    first, again, other = (np.asarray(sample(models["plain"], *size, "--seed", seed)[0]) for seed in "778")
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("model", "rows", "arguments", "expected"),
    [
        ("labels", 3, (), [0, 1, 2]),
        ("labels", 12, (), [*range(10), 0, 1]),
        ("labels", 5, ("--labels", "7, 3"), [7, 3, 7, 3, 7]),
        ("labels", 2, ("--labels", "4,4"), [4, 4]),
        ("fashion", 4, ("--labels", "Bag,ankle BOOT,2"), [8, 9, 2, 8]),
        ("swapped", 3, ("--labels", "1,0,two"), [2, 0, 1]),  # a name goes before a number
    ],
)
def test_each_row_has_its_label(models, sample, model, rows, arguments, expected):
    sheet, result = sample(models[model], "--rows", str(rows), "--cols", "2", *arguments)
    assert result["labels"] == expected
    sampler = load_sampler(models[model])
    drawn = sampler.sample(rows * 2, seed=0, labels=torch.tensor([label for label in expected for _ in range(2)]))
    np.testing.assert_array_equal(cut(sheet, rows, 2).reshape(-1, 28, 28), drawn[:, 0].numpy())


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("labels", ("--labels", "11"), "--labels: '11' is none of this model's 10 classes, numbered 0 to 9"),
        ("labels", ("--labels", "3,-1"), "'-1' is none of"),
        ("labels", ("--labels", "1,,2"), "'' is none of"),
        ("labels", ("--labels", "9" * 5000), "is none of"),
        ("fashion", ("--labels", "sneakers"), "Did you mean sneaker?"),
        ("labels", ("--labels", "1,2,3", "--rows", "2"), "each takes a row, and --rows is 2. Give --rows 3."),
        ("plain", ("--labels", "1"), "trained without labels"),
        ("plain", ("--labels", "1"), "dcgan train --conditional"),
        ("plain", ("--rows", "0"), "--rows 0 --cols 10: give at least 1"),
        ("plain", ("--cols", "-3"), "--cols -3: give at least 1"),
        ("plain", ("--seed", str(2**63)), "give 0 to 2^63 - 1"),
        ("plain", ("--interpolate", "--cols", "1"), "Give --cols 2 or more"),
        ("plain", ("--rows", "10000", "--cols", "10000"), "Give smaller numbers"),
    ],
)
def test_refuses(models, refusal, model, arguments, message):
    assert message in refusal(models[model], *arguments)


def test_refuses_missing_models_and_unknown_formats(models, tmp_path, refusal):
    assert "there is no such folder" in refusal(tmp_path / "absent")
    assert "is not an image format" in refusal(models["plain"], name="out.txt")


def test_interpolation_keeps_the_label_and_goes_from_end_to_end(models, sample):
    sheet, result = sample(models["labels"], "--interpolate", "--rows", "2", "--cols", "4", "--labels", "5,6")
    assert result["labels"] == [5, 6]
    sampler = load_sampler(models["labels"])
    ends = sampler.latents(4, seed=0)  # two starts, two ends
    drawn = sampler.draw(ends, torch.tensor([5, 6, 5, 6]))[:, 0].int().numpy()
    images = cut(sheet, 2, 4).astype(int)
    assert np.abs(images[:, 0] - drawn[:2]).max() <= 1  # rounding of the ends themselves
    assert np.abs(images[:, 3] - drawn[2:]).max() <= 1


def test_interpolations_stay_in_the_latent_distribution(models):
    normal = interpolated_latents(load_sampler(models["plain"]), 5, 9, seed=3).view(5, 9, 8)
    lengths = normal.norm(dim=-1)
    torch.testing.assert_close(lengths, lengths[:, :1].lerp(lengths[:, -1:], torch.linspace(0, 1, 9)))
    steps = torch.nn.functional.cosine_similarity(normal[:, 1:], normal[:, :-1], dim=-1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=0)  # turns evenly
    uniform = interpolated_latents(load_sampler(models["uniform"]), 5, 9, seed=3).view(5, 9, 8)
    torch.testing.assert_close(uniform[:, 4], (uniform[:, 0] + uniform[:, 8]) / 2)  # straight
    assert uniform.abs().max() <= 1


def test_slerp_agrees_with_the_formula_on_a_sphere():
    """White's formula, for ends of one length."""
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20, 100, generator=rng, dtype=torch.float64)
    b *= a.norm(dim=-1, keepdim=True) / b.norm(dim=-1, keepdim=True)
    angle = torch.arccos(torch.nn.functional.cosine_similarity(a, b))[:, None]
    for t in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)
        torch.testing.assert_close(slerp(a, b, t), expected)


def test_slerp_by_hand():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    third = slerp(a, b, 1 / 3)
    length = 1 + 2 / 3
    torch.testing.assert_close(third, torch.tensor([length * math.cos(math.pi / 6), length * math.sin(math.pi / 6)]))
    assert third.dtype == torch.float32


vectors = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3).map(torch.tensor)


@given(a=vectors, b=vectors, t=st.floats(0, 1))
def test_slerp_is_finite_no_longer_than_its_ends_and_meets_them(a, b, t):
    a, b = a.double(), b.double()
    point = slerp(a, b, t)
    assert point.isfinite().all()
    assert point.norm() <= max(a.norm(), b.norm()) + 1e-9
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, t), slerp(a, b, torch.tensor([t], dtype=torch.float64)))
    torch.testing.assert_close(slerp(a, b, 1.0), b, atol=1e-6, rtol=1e-6)
    if min(a.norm(), b.norm()) > 0 and torch.nn.functional.cosine_similarity(a, b, dim=0) > -0.999:
        torch.testing.assert_close(point, slerp(b, a, 1 - t), atol=1e-5, rtol=1e-5)


@given(a=vectors, length=st.floats(0, 3), t=st.floats(0, 1))
def test_slerp_of_one_direction_is_straight(a, length, t):
    a = a.double()
    torch.testing.assert_close(slerp(a, a * length, t), a * (1 + t * (length - 1)))


def write_samples(run, count, channels=3, size=24):
    """Write images of a training, each of one gray (or color) more than the last."""
    folder = run / "samples"
    folder.mkdir(parents=True)
    frames = []
    for i in range(count):
        frame = np.full((size, size + 8, channels), 10 + i, np.uint8)
        frame[i % size, :, 0] = 200
        if channels == 3:
            frame[i % size, :, 1:] = 200
        Image.fromarray(frame[..., 0] if channels == 1 else frame).save(folder / f"step-{500 * i:08d}.png")
        frames.append(frame)
    return frames


def decode(animation):
    frames, durations = [], []
    for i in range(animation.n_frames):
        animation.seek(i)
        frames.append(np.asarray(animation.convert("RGB")))
        durations.append(animation.info["duration"])
    return frames, durations


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".gif", ".webp", ".GIF"])
def test_animation_shows_every_sample_in_order(tmp_path, sample, suffix, channels):
    written = write_samples(tmp_path / "run", 20, channels)
    (tmp_path / "run" / "samples" / "best.png").write_bytes(b"passed over")
    animation, result = sample(tmp_path / "run", name=f"out{suffix}")
    assert result["frames"] == animation.n_frames == 20
    assert animation.info["loop"] == 0
    frames, durations = decode(animation)
    for frame, expected in zip(frames, written, strict=True):
        np.testing.assert_array_equal(frame, np.broadcast_to(expected, frame.shape))
    assert durations == [DURATION / 20] * 19 + [LAST_FRAME]


def test_animation_of_a_long_training_is_thinned(tmp_path, sample):
    written = write_samples(tmp_path / "run", MAX_FRAMES + 40)
    animation, result = sample(tmp_path / "run", name="out.gif")
    assert result["frames"] == animation.n_frames == MAX_FRAMES
    frames, durations = decode(animation)
    np.testing.assert_array_equal(frames[0], written[0])
    np.testing.assert_array_equal(frames[-1], written[-1])
    assert sum(durations[:-1]) == pytest.approx(DURATION, rel=0.01)


def test_animation_of_one_sample(tmp_path, sample):
    written = write_samples(tmp_path / "run", 1)
    animation, result = sample(tmp_path / "run", name="out.gif")
    assert result["frames"] == animation.n_frames == 1
    np.testing.assert_array_equal(np.asarray(animation.convert("RGB")), written[0])


def test_animation_refusals(tmp_path, models, refusal):
    assert "has no samples/step-*.png" in refusal(models["plain"], name="out.gif")
    assert "has no samples/step-*.png" in refusal(tmp_path / "absent", name="out.webp")
    write_samples(tmp_path / "run", 3)
    for arguments in (("--labels", "1"), ("--interpolate",), ("--rows", "3"), ("--cols", "3"), ("--seed", "1")):
        assert f"it takes no {arguments[0]}." in refusal(tmp_path / "run", *arguments, name="out.gif")
    Image.new("RGB", (5, 5)).save(tmp_path / "run" / "samples" / "step-00000777.png")
    assert "step-00000777.png: differs in size" in refusal(tmp_path / "run", name="out.gif")
    (tmp_path / "run" / "samples" / "step-00000777.png").write_bytes(b"no image")
    assert "step-00000777.png: is not a readable image" in refusal(tmp_path / "run", name="out.gif")


def test_animation_that_cannot_be_written(tmp_path, capsys):
    write_samples(tmp_path / "run", 2)
    (tmp_path / "file").write_bytes(b"")
    assert main(["sample", str(tmp_path / "run"), str(tmp_path / "file" / "out.gif")]) == 2
    assert "cannot be written" in capsys.readouterr().err
