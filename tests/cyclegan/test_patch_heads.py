"""The heads of PatchNCE, against matrix products written out, and the locations that they read."""

import pytest
import torch

from cyclegan.patch_heads import PatchHeads, draw_locations
from ganvas.nn.resnet import ResNetGenerator


def features(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 5, 7, generator=rng), torch.randn(2, 4, 2, 6, generator=rng)]


def test_parameter_count_of_the_paper():
    """The authors' code prints 0.560 million for the layers of a ResNet."""
    with torch.device("meta"):
        heads = PatchHeads(ResNetGenerator(resampling="blur").feature_channels)
    expected = sum((channels + 1) * 256 + (256 + 1) * 256 for channels in (3, 128, 256, 256, 256))
    assert sum(p.numel() for p in heads.parameters()) == expected == 560_384


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_go_through_two_layers_to_length_one(layout):
    heads, locations = PatchHeads([3, 4], out_channels=8), [torch.tensor([0, 34, 8]), torch.tensor([11, 3, 0])]
    given = [each.to(memory_format=layout) for each in features()]
    for head, feature, indices, output in zip(heads.heads, given, locations, heads(given, locations), strict=True):
        assert output.shape == (2, 3, 8)
        for n in range(2):
            for p, index in enumerate(indices.tolist()):
                x = feature[n, :, index // feature.shape[3], index % feature.shape[3]]
                y = head[2].weight @ (head[0].weight @ x + head[0].bias).clamp(min=0) + head[2].bias
                torch.testing.assert_close(output[n, p], y / y.square().sum().sqrt())


def test_locations_are_different_and_cover_all_positions():
    torch.manual_seed(0)
    first, second = draw_locations(features(), 12)
    assert sorted(second.tolist()) == list(range(12))
    assert len(set(first.tolist())) == 12
    drawn = torch.cat([draw_locations(features(), 12)[0] for _ in range(200)])
    counts = torch.bincount(drawn, minlength=35)
    assert counts.min() > 200 * 12 / 35 * 0.6
    assert counts.max() < 200 * 12 / 35 * 1.4


def test_too_few_locations_are_refused():
    with pytest.raises(ValueError, match="features are 2x6: too small for 13 patches"):
        draw_locations(features(), 13)
