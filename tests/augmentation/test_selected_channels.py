import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.augmentation.selected_channels import (
    OnChannels,
    before_intensity,
    is_intensity_transform,
    only_image_channels,
)

SHAPES = [(12, 10), (8, 10, 12)]
PLACES = [[0], [2], [0, 3], [3, 1]]


class PlusOwnNumber(ImageOnlyTransform):
    """Adds 1 to the first channel that it sees, 2 to the second …, in place as those of batchgeneratorsv2 do."""

    def _apply_to_image(self, img, **params):
        return img.add_(torch.arange(1.0, len(img) + 1).view(-1, *[1] * (img.ndim - 1)))


class Marker(ImageOnlyTransform):
    pass


def image(channels, shape, seed=0):
    return torch.randn((channels, *shape), generator=torch.Generator().manual_seed(seed))


def nnunets(shape=(16, 16, 16), dummy_2d=False, cascaded=False):
    return nnUNetTrainer.get_training_transforms(
        np.array(shape),
        (-0.5, 0.5),
        [[1.0] * len(shape), [0.5] * len(shape)],
        (0, 1) if len(shape) == 2 else (0, 1, 2),
        dummy_2d,
        use_mask_for_norm=[True, False, False],
        is_cascaded=cascaded,
        foreground_labels=[1, 2] if cascaded else None,
    )


def always(transforms):
    """The same with every RandomTransform certain to apply."""
    for one in transforms.transforms:
        if isinstance(one, RandomTransform):
            one.apply_probability = 1
    return transforms


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", PLACES)
@pytest.mark.parametrize("in_random", [False, True])
def test_only_the_channels_that_are_named_change_and_in_their_order(shape, channels, in_random):
    given, segmentation = image(4, shape), torch.ones(1, *shape)
    kept = given.clone()
    inner = RandomTransform(PlusOwnNumber(), 1.0) if in_random else PlusOwnNumber()
    result = OnChannels(inner, channels)(image=given, segmentation=segmentation, keypoints="mine")
    for channel in range(4):
        added = channels.index(channel) + 1 if channel in channels else 0
        assert torch.equal(result["image"][channel], kept[channel] + added)
    assert torch.equal(given, kept), "the given image must not change"
    assert result["segmentation"] is segmentation
    assert result["keypoints"] == "mine"


def test_a_random_transform_inside_that_does_not_apply_changes_nothing():
    given = image(2, (6, 6))
    assert torch.equal(OnChannels(RandomTransform(PlusOwnNumber(), 0.0), [1])(image=given)["image"], given)


def test_the_transform_sees_an_image_of_these_channels_alone():
    transform = MultiplicativeBrightnessTransform(BGContrast((0.5, 0.6)), synchronize_channels=False, p_per_channel=1)
    given = image(3, (6, 6, 6))
    torch.manual_seed(0)
    np.random.seed(0)
    alone = transform(image=given[[2, 0]].clone())["image"]
    torch.manual_seed(0)
    np.random.seed(0)
    result = OnChannels(transform, [2, 0])(image=given)["image"]
    assert torch.equal(result[[2, 0]], alone)
    assert torch.equal(result[1], given[1])
    assert not torch.equal(result[0], given[0])


@pytest.mark.parametrize("channels", [[], [1, 1]])
def test_no_channel_and_a_channel_twice_are_refused(channels):
    with pytest.raises(ValueError, match="none twice"):
        OnChannels(PlusOwnNumber(), channels)


@pytest.mark.parametrize("cascaded", [False, True])
@pytest.mark.parametrize(("shape", "dummy_2d"), [((16, 16), False), ((16, 16, 16), False), ((4, 16, 16), True)])
def test_of_nnunets_transforms_the_seven_of_intensities_are_restricted_and_nothing_else(shape, dummy_2d, cascaded):
    given = nnunets(shape, dummy_2d, cascaded)
    before = list(given.transforms)
    result = only_image_channels(given, [0, 1])
    assert [type(one) for one in result.transforms] == [type(one) for one in before]
    assert given.transforms == before, "the given transforms must not change"
    restricted = 0
    for old, new in zip(before, result.transforms):
        if isinstance(getattr(new, "transform", None), OnChannels):
            restricted += 1
            assert new.transform.transform is old.transform
            assert new.transform.channels == [0, 1]
            assert new.apply_probability == old.apply_probability
        else:
            assert new is old
    assert restricted == 7  # noise, blur, brightness, contrast, low resolution, gamma of the inverted image, gamma
    left = [type(one.transform) for one in result.transforms if isinstance(one, RandomTransform)][restricted:]
    of_cascade = [ApplyRandomBinaryOperatorTransform, RemoveRandomConnectedComponentFromOneHotEncodingTransform]
    assert left == (of_cascade if cascaded else [])


@pytest.mark.parametrize(("shape", "dummy_2d"), [((16, 16), False), ((16, 16, 16), False), ((4, 16, 16), True)])
def test_nnunets_transforms_leave_label_channels_binary_and_change_the_images(shape, dummy_2d):
    labels = (image(2, shape, seed=1) > 0).float()
    given = torch.cat([labels[:1], image(2, shape), labels[1:]])  # images in the middle
    transforms = always(only_image_channels(nnunets(shape, dummy_2d), [1, 2]))
    spatial = next(one for one in transforms.transforms if isinstance(one, SpatialTransform))
    spatial.p_rotation = spatial.p_scaling = 0
    transforms.transforms = [one for one in transforms.transforms if type(one).__name__ != "MirrorTransform"]
    for seed in range(3):
        torch.manual_seed(seed)
        np.random.seed(seed)
        result = transforms(image=given.clone(), segmentation=torch.zeros(1, *shape, dtype=torch.int16))
        assert torch.equal(result["image"][[0, 3]], given[[0, 3]])
        for channel in (1, 2):
            assert (result["image"][channel] != given[channel]).float().mean() > 0.9


def test_without_the_restriction_the_labels_would_change():
    given = (image(2, (16, 16, 16)) > 0).float()
    transforms = always(nnunets())
    result = transforms(image=given.clone(), segmentation=torch.zeros(1, 16, 16, 16, dtype=torch.int16))
    assert not set(result["image"].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("shape", "dummy_2d", "previous"),
    [((16, 16, 16), False, SpatialTransform), ((4, 16, 16), True, Convert2DTo3DTransform)],
)
def test_another_transform_comes_after_the_spatial_ones_and_before_those_of_intensities(shape, dummy_2d, previous):
    given = nnunets(shape, dummy_2d)
    marker = Marker()
    result = before_intensity(given, marker)
    place = result.transforms.index(marker)
    assert type(result.transforms[place - 1]) is previous
    assert is_intensity_transform(result.transforms[place + 1])
    assert [one for one in result.transforms if one is not marker] == given.transforms


@pytest.mark.parametrize("transforms", [ComposeTransforms([Marker()]), only_image_channels(nnunets(), [0])])
def test_where_no_transform_changes_intensities_of_all_channels_there_is_no_place_before_them(transforms):
    with pytest.raises(ValueError, match="no intensity transform of all channels"):
        before_intensity(transforms, Marker())
