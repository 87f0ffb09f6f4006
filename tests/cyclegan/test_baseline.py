import pytest
import torch

from cyclegan.baseline import DomainColors, match_colors


def random_images(mean, spread, count=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 20, 10 + n, generator=generator) * spread + mean for n in range(count)]


@pytest.mark.parametrize("largest", [255, 65535])
def test_colors_equal_those_of_all_pixels_at_once(largest):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(largest + 1, (3, 9, 5 + n), generator=generator) * (2 / largest) - 1 for n in range(3)]
    pixels = torch.cat([image.flatten(1) for image in images], dim=1)
    colors = DomainColors.measure(iter(images))
    torch.testing.assert_close(colors.mean, pixels.mean(dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(colors.deviation, pixels.std(dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(colors.median, pixels.median(dim=1).values, rtol=0, atol=1e-6)
    flat = colors.flat(torch.zeros(1, 4, 6))
    assert flat.shape == (3, 4, 6)
    assert torch.equal(flat[:, 3, 5], colors.median)


def test_the_median_of_floats_is_that_of_their_bin():
    images = [image.clamp(-1, 1) for image in random_images(0.1, 0.3)]
    median = torch.cat([image.flatten(1) for image in images], dim=1).median(dim=1).values
    torch.testing.assert_close(DomainColors.measure(images).median, median, rtol=0, atol=2e-5)


def test_matched_colors_have_the_other_domains_mean_and_deviation():
    dark, light = random_images(-0.3, 0.1), random_images(0.2, 0.05)
    source, target = DomainColors.measure(dark), DomainColors.measure(light)
    moved = torch.cat([match_colors(image, source, target).flatten(1) for image in dark], dim=1)
    wanted = torch.cat([image.flatten(1) for image in light], dim=1)
    torch.testing.assert_close(moved.mean(dim=1), wanted.mean(dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(moved.std(dim=1), wanted.std(dim=1), rtol=0, atol=1e-5)


def test_matched_colors_stay_in_range_and_flat_domains_do_not_divide_by_zero():
    flat = DomainColors.measure([torch.full((1, 4, 4), 0.5)])
    wide = DomainColors.measure([torch.tensor([[[-1.0, 1.0]]])])
    assert match_colors(torch.full((1, 2, 2), 0.5), flat, wide).eq(0).all()
    assert match_colors(torch.ones(1, 2, 2), flat, wide).eq(1).all()


@pytest.mark.parametrize("images", [[], [torch.zeros(1, 2, 2), torch.zeros(3, 2, 2)]])
def test_colors_of_no_domain_are_refused(images):
    with pytest.raises(ValueError, match=r"there are no images|1 and 3 channels"):
        DomainColors.measure(images)
