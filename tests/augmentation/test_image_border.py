import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunet_ext.augmentation.image_border import (
    AIR,
    OUTSIDE,
    CasesWithMarkedAir,
    KeepOutside,
    MarkedAir,
    ignored_outside,
    keeping_outside,
    without_outside,
)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_air_is_marked_as_it_is_read_and_the_stored_array_stays(dtype):
    stored = np.array([[[-1, 0, 3], [2, -1, 1]]], dtype=dtype)
    marked = MarkedAir(stored)
    assert marked.shape == stored.shape
    read = marked[(slice(None), slice(0, 2), slice(0, 2))]
    assert read.dtype == dtype
    assert read.tolist() == [[[AIR, 0], [2, AIR]]]
    assert stored[0, 0, 0] == OUTSIDE
    assert OUTSIDE == -1 > AIR


class Cases:
    identifiers = ("a", "b")

    def __len__(self):
        return 2

    def load_case(self, identifier):
        return f"image {identifier}", np.array([[[-1, 1]]]), f"previous {identifier}", {"of": identifier}


def test_a_dataset_hands_on_everything_else():
    cases = CasesWithMarkedAir(Cases())
    assert cases.identifiers == ("a", "b")
    assert len(cases) == 2
    image, segmentation, previous, properties = cases.load_case("b")
    assert (image, previous, properties) == ("image b", "previous b", {"of": "b"})
    assert segmentation[(slice(None),)].tolist() == [[[AIR, 1]]]


def test_only_the_first_channel_keeps_what_is_outside():
    both = torch.tensor([[[OUTSIDE, AIR, 0, 2]], [[OUTSIDE, AIR, 1, 0]]], dtype=torch.int16)
    assert KeepOutside()(segmentation=both)["segmentation"].tolist() == [[[OUTSIDE, 0, 0, 2]], [[0, 0, 1, 0]]]


class Doubled(ImageOnlyTransform):
    def _apply_to_image(self, img, **params):
        return 2 * img


def test_transforms_stay_in_their_order_and_others_as_they_are():
    doubled, other = Doubled(), RemoveLabelTransform(5, 0)
    before = ComposeTransforms([doubled, RemoveLabelTransform(-1, 0), other])
    after = keeping_outside(before)
    assert [type(one) for one in after.transforms] == [Doubled, KeepOutside, RemoveLabelTransform]
    assert after.transforms[0] is doubled
    assert after.transforms[2] is other
    assert isinstance(before.transforms[1], RemoveLabelTransform)


def test_labels_regions_and_a_previous_stage_come_out_as_nnunet_would_have_them():
    labels = torch.tensor([OUTSIDE, AIR, 0, 1, 2, 3, 1, OUTSIDE]).reshape(1, 2, 4)
    previous = torch.tensor([OUTSIDE, OUTSIDE, 0, 1, 2, 0, 0, 0]).reshape(1, 2, 4)
    for regions in (None, [[1, 2], [2], [3]]):
        stock = [RemoveLabelTransform(-1, 0), MoveSegAsOneHotToDataTransform(1, [1, 2])]
        stock += [] if regions is None else [ConvertSegmentationToRegionsTransform(regions)]
        stock = ComposeTransforms([*stock, DownsampleSegForDSTransform([[1, 1], [1, 0.5]])])
        sample = {"image": torch.ones(1, 2, 4), "segmentation": torch.cat([labels, previous])}
        merged = {key: value.clone() for key, value in sample.items()}
        merged["segmentation"][merged["segmentation"] == AIR] = -1  # nnU-Net knows one number for both
        expected = stock(**merged)
        found = keeping_outside(stock)(**{key: value.clone() for key, value in sample.items()})
        assert torch.equal(found["image"], expected["image"])
        for level, of_stock in zip(found["segmentation"], expected["segmentation"]):
            target, inside = without_outside(level[None], has_regions=regions is not None)
            assert target.dtype == of_stock.dtype
            assert torch.equal(target[0], of_stock)
            assert inside.shape == (1, 1, *of_stock.shape[1:])
            assert inside.dtype == torch.bool
        _, inside = without_outside(found["segmentation"][0][None], has_regions=regions is not None)
        assert torch.equal(inside[0], labels != OUTSIDE)


def test_the_ignore_label_fills_what_is_outside():
    inside = torch.tensor([True, False, True]).reshape(1, 1, 1, 3)
    labels = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
    assert ignored_outside(labels, inside, 4, has_regions=False).flatten().tolist() == [1, 4, 0]
    assert ignored_outside(labels, inside, None, has_regions=False) is labels
    regions = torch.tensor([[1, 0, 0], [0, 0, 1]], dtype=torch.bool).reshape(1, 2, 1, 3)
    assert ignored_outside(regions, inside, 4, has_regions=True)[0, :, 0].tolist() == [[1, 0, 0], [0, 1, 1]]


def test_every_region_but_that_of_the_ignore_label_stays():
    inside = torch.tensor([True, False]).reshape(1, 1, 1, 2)
    regions = torch.tensor([[1, 0], [1, 1], [0, 0]], dtype=torch.bool).reshape(1, 3, 1, 2)
    assert ignored_outside(regions, inside, 4, has_regions=True)[0, :, 0].tolist() == [[1, 0], [1, 1], [0, 1]]


def test_regions_are_made_of_the_channel_that_nnunet_takes():
    before = ComposeTransforms([ConvertSegmentationToRegionsTransform([[1, 2], [2]], channel_in_seg=1)])
    (after,) = keeping_outside(before).transforms
    segmentation = torch.tensor([[[0, 0, 0, 0]], [[OUTSIDE, 0, 1, 2]]])
    assert after(segmentation=segmentation)["segmentation"].int().tolist() == [
        [[0, 0, 1, 1]],
        [[0, 0, 0, 1]],
        [[1, 0, 0, 0]],
    ]
