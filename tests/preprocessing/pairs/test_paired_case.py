"""The channels of one case: which there are, where they lie, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs import paired_case
from nnunet_ext.preprocessing.pairs.image_registration import Registration
from nnunet_ext.preprocessing.pairs.images import on_grid
from nnunet_ext.preprocessing.pairs.paired_case import PairedCase, Pairing, make_case
from nnunet_ext.preprocessing.pairs.pairing import Pair
from support.bodies import CENTRE, depth, drawn, grid, intensities, positions
from support.scan_pairs import box, scan, textured, write_pair

PAIRING = Pairing({"left": 1, "right": 2})


def made(folder: Path, pairing: Pairing = PAIRING, *, if_diverged="stop", **images) -> PairedCase:
    cells = write_pair(folder / "ä b", "ann", **images)
    files = {column: folder / "ä b" / cell for column, cell in cells.items() if cell and column != "patient"}
    return make_case(Pair("ann", "ann", **files), pairing, if_diverged=if_diverged)


def refusal(folder: Path, pairing: Pairing = PAIRING, **images) -> str:
    with pytest.raises(UserError) as error:
        made(folder, pairing, **images)
    return str(error.value)


def arrays(case: PairedCase) -> list[np.ndarray]:
    return [sitk.GetArrayFromImage(channel) for channel in case.channels]


def test_channels_are_images_and_one_binary_map_for_each_prior_label(tmp_path):
    current, prior = textured(1), textured(2)
    case = made(tmp_path, current_image=scan(current), prior_image=scan(prior))
    found = arrays(case)
    expected = [current, prior, box({1: (2, 5)}), box({1: (5, 8)})]  # the second label's channel holds 1 too
    assert len(found) == 4
    assert all((one == other).all() for one, other in zip(found, expected))
    assert {channel.dtype for channel in found[2:]} == {np.dtype(np.uint8)}
    assert (sitk.GetArrayFromImage(case.label) == box({1: (3, 5), 2: (5, 7)})).all()
    assert (case.record["prior"], case.record["resampled"], case.record["coverage"]) == ("image and labels", [], 1.0)
    assert case.record["warnings"] == []


def test_ignore_is_no_label_of_the_prior(tmp_path):
    labels = box({1: (2, 4), 2: (4, 6)})
    case = made(tmp_path, Pairing({"left": 1, "ignore": 2}), prior_label=scan(labels))
    assert len(case.channels) == 3
    assert (arrays(case)[2] == (labels == 1)).all()


@pytest.mark.parametrize(
    ("images", "prior"),
    [({"prior_image": None, "prior_label": None}, "missing"), ({"prior_label": None}, "image")],
)
def test_what_is_missing_is_zero(tmp_path, images, prior):
    case = made(tmp_path, **images)
    assert case.record["prior"] == prior
    assert [bool(channel.any()) for channel in arrays(case)] == [True, prior == "image", False, False]
    assert all(channel.GetSize() == case.channels[0].GetSize() for channel in case.channels)
    assert not case.problem


def test_labels_without_an_image_need_no_registration(tmp_path):
    case = made(tmp_path, prior_image=None)
    assert case.record["prior"] == "labels"
    assert [bool(channel.any()) for channel in arrays(case)] == [True, False, True, True]
    message = refusal(tmp_path, replace(PAIRING, registration="rigid"), prior_image=None)
    assert "ann" in message
    assert "no prior image, which the registration (rigid) needs" in message


def test_parts_of_the_prior_can_be_left_out(tmp_path):
    images = made(tmp_path, replace(PAIRING, prior_labels=False))
    assert [channel.max() > 1 for channel in arrays(images)] == [True, True]
    labels = made(tmp_path, replace(PAIRING, prior_image=False))
    assert [channel.max() > 1 for channel in arrays(labels)] == [True, False, False]
    assert replace(PAIRING, prior_image=False).roles == {"current": [0], "prior_image": [], "prior_labels": [1, 2]}


def test_channels_of_a_case_have_one_geometry_to_the_last_digit(tmp_path):
    nearly = {"origin": (5.00001, -7, 11)}
    case = made(
        tmp_path,
        prior_image=scan(textured(2), **nearly),
        prior_label=scan(box({1: (2, 5)}), **nearly),
        current_label=scan(box({1: (2, 5)}), **nearly),
    )
    assert {one.GetOrigin() for one in (*case.channels, case.label)} == {case.channels[0].GetOrigin()}
    assert case.record["resampled"] == []


def test_prior_on_another_grid_is_resampled_by_its_header_and_said_so(tmp_path):
    """Moved by two columns in the patient, so that what was in column 4 is in column 2 of the current scan."""
    prior, labels, elsewhere = textured(2), box({1: (4, 6), 2: (6, 9)}), (5.0 - 2, -7.0, 11.0)
    case = made(tmp_path, prior_image=scan(prior, origin=elsewhere), prior_label=scan(labels, origin=elsewhere))
    found = arrays(case)
    assert np.allclose(found[1][..., :10], prior[..., 2:])
    assert (found[2] == box({1: (2, 4)})).all()
    assert (found[3] == box({1: (4, 7)})).all()
    assert case.record["resampled"] == ["prior image", "prior labels"]
    assert "origin (3, -7, 11) and (5, -7, 11)" in case.record["grids"]
    assert case.record["coverage"] == pytest.approx(10 / 12, abs=1e-4)


def test_prior_of_other_axes_is_brought_to_the_current_ones(tmp_path):
    prior, labels = scan(textured(2)), scan(box({1: (2, 5)}))
    axes = (True, True, False)
    case = made(tmp_path, prior_image=sitk.Flip(prior, axes), prior_label=sitk.Flip(labels, axes))
    assert np.allclose(arrays(case)[1], textured(2))
    assert (arrays(case)[2] == box({1: (2, 5)})).all()


def test_little_coverage_is_warned_of(tmp_path):
    far = {"origin": (5.0 + 8, -7.0, 11.0)}
    case = made(tmp_path, prior_image=scan(textured(2), **far), prior_label=scan(box({2: (8, 12)}), **far))
    assert case.record["warnings"] == [
        "by the headers, the prior covers 33% of the current image",
        "all of the prior label right lies outside of the image",
    ]


def test_header_without_position_is_warned_of(tmp_path):
    plain = sitk.GetImageFromArray(textured(2, (40, 40, 40)))
    place = {"origin": (1.0, 1.0, 1.0)}
    case = made(
        tmp_path,
        prior_image=plain,
        prior_label=None,
        current_image=scan(textured(1), **place),
        current_label=scan(box({1: (1, 3)}), **place),
    )
    assert "one header gives no position" in case.record["warnings"][0]


def test_prior_that_does_not_overlap_is_a_problem_unless_told_otherwise(tmp_path):
    far = {"origin": (500.0, -7.0, 11.0)}
    images = {"prior_image": scan(textured(2), **far), "prior_label": scan(box({1: (2, 5)}), **far)}
    assert "do not overlap" in made(tmp_path, **images).problem
    case = made(tmp_path, if_diverged="without-prior", **images)
    assert (case.problem, case.record["prior"], case.record["if_diverged"]) == ("", "missing", "without-prior")
    assert "do not overlap" in case.record["problem"]
    assert not any(channel.any() for channel in arrays(case)[1:])


def test_empty_current_labels_are_warned_of(tmp_path):
    case = made(tmp_path, current_label=scan(box({})))
    assert case.record["warnings"] == ["the current label map is empty"]


def test_labels_off_the_grid_of_their_image_are_refused(tmp_path):
    message = refusal(tmp_path, current_label=scan(box({}), origin=(5, -7, 12)))
    assert "current_label ann.nii.gz does not lie on the grid of its image" in message
    assert "origin (5, -7, 12) and (5, -7, 11)" in message
    message = refusal(tmp_path, prior_label=scan(box({}, (6, 10, 14))))
    assert "prior_label ann.nii.gz does not lie on the grid of its image" in message
    assert "14 x 10 x 6 and 12 x 10 x 6 voxels" in message


def test_labels_that_are_not_whole_or_not_known_are_refused(tmp_path):
    blurred = box({1: (2, 5)}).astype(np.float32) / 4
    assert "prior_label ann.nii.gz holds values that are no labels: 0.25" in refusal(
        tmp_path, prior_label=scan(blurred)
    )
    assert "prior_label ann.nii.gz has the value 3" in refusal(tmp_path, prior_label=scan(box({3: (2, 5)})))
    assert "current_label ann.nii.gz has the value 3" in refusal(tmp_path, current_label=scan(box({3: (2, 5)})))


def test_prior_of_other_dimensions_is_refused(tmp_path):
    flat = sitk.GetImageFromArray(textured(2)[0])
    assert "has 3 dimensions, its prior 2" in refusal(tmp_path, prior_image=flat, prior_label=None)


def test_flat_scans_are_paired(tmp_path):
    flat = {
        name: sitk.GetImageFromArray(textured(seed)[0]) for seed, name in enumerate(("current_image", "prior_image"))
    }
    labels = {name: sitk.GetImageFromArray(box({1: (2, 5)})[2]) for name in ("prior_label", "current_label")}
    case = made(tmp_path, **flat, **labels)
    assert [channel.GetDimension() for channel in case.channels] == [2, 2, 2, 2]
    assert arrays(case)[2].any()


@pytest.fixture
def shifting(monkeypatch):
    """A registration that moves by two columns, and finds fault where it is told to."""

    def install(problem: str | None = None) -> None:
        def register(current, prior, kind, *, seed=0):
            transform = sitk.TranslationTransform(3, (2.0, 0.0, 0.0))  # points of current -> points of prior
            return Registration(
                transform=transform,
                kind=kind,
                reached=kind,
                similarity_before=0.1,
                similarity_after=0.123456,
                mean_displacement=2.0,
                max_displacement=2.0,
                inside=float("nan"),
                problem=problem,
            )

        monkeypatch.setattr(paired_case, "register_images", register)

    return install


def test_registration_moves_image_and_labels_and_is_recorded(tmp_path, shifting):
    shifting()
    prior = textured(2)
    case = made(
        tmp_path, replace(PAIRING, registration="rigid"), prior_image=scan(prior), prior_label=scan(box({1: (4, 6)}))
    )
    assert np.allclose(arrays(case)[1][..., :10], prior[..., 2:])
    assert (arrays(case)[2] == box({1: (2, 4)})).all()
    record = case.record
    assert (record["registration"], record["reached"], record["problem"]) == ("rigid", "rigid", None)
    assert (record["similarity_before"], record["similarity_after"]) == (0.1, 0.1235)
    assert (record["mean_displacement_mm"], record["coverage"]) == (2.0, None)  # JSON has no NaN
    _, before, after = (sitk.GetArrayFromImage(view) for view in case.views)
    assert np.allclose(before, prior)
    assert np.allclose(after[..., :10], prior[..., 2:])


def test_diverged_registration_is_a_problem_unless_told_otherwise(tmp_path, shifting):
    shifting("the deformation folds")
    pairing = replace(PAIRING, registration="bspline")
    prior = textured(2)
    assert made(tmp_path, pairing).problem == "the deformation folds"
    case = made(tmp_path, pairing, if_diverged="unregistered", prior_image=scan(prior))
    assert not case.problem
    assert (arrays(case)[1] == prior).all()
    assert (case.record["problem"], case.record["if_diverged"]) == ("the deformation folds", "unregistered")
    case = made(tmp_path, pairing, if_diverged="without-prior")
    assert not case.problem
    assert not any(channel.any() for channel in arrays(case)[1:])
    assert case.record["prior"] == "missing"


def test_image_is_registered_for_the_labels_alone(tmp_path, shifting):
    shifting()
    pairing = replace(PAIRING, registration="rigid", prior_image=False)
    case = made(tmp_path, pairing, prior_label=scan(box({1: (4, 6)})))
    assert (arrays(case)[1] == box({1: (2, 4)})).all()
    assert made(tmp_path, pairing, prior_label=None).record["prior"] == "missing"


def body_pair() -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """A current scan, its label map (an organ, and a voxel in a corner) and a prior."""
    current = drawn(grid(), intensities, noise=4)
    values = (depth(positions(current)) > 0.6).astype(np.uint8)
    values[0, 0, 0] = 1
    return current, on_grid(values, current), drawn(grid(), intensities, noise=4, seed=1)


def test_crop_cuts_images_and_labels_alike_and_warns_of_labels_outside_of_the_body(tmp_path):
    current, labels, prior = body_pair()
    case = made(
        tmp_path,
        Pairing({"organ": 1}, crop_to_body=2.0),
        current_image=current,
        current_label=labels,
        prior_image=prior,
        prior_label=labels,
    )
    images = [*case.channels, case.label]
    assert all(image.GetSize() == case.channels[0].GetSize() for image in images)
    assert case.record["cropped_from"] == [44, 44, 44]
    assert case.record["cropped_to"] == list(case.label.GetSize()) < [44, 44, 44]
    # what lies at a place in the patient is still there
    at = current.TransformPhysicalPointToIndex(CENTRE.tolist())
    now_at = case.channels[0].TransformPhysicalPointToIndex(CENTRE.tolist())
    assert [image[now_at] for image in images] == pytest.approx([current[at], prior[at], 1, 1])
    assert "1 of " in case.record["warnings"][0]
    assert "outside of the body" in case.record["warnings"][0]


def test_all_images_are_given_the_intensities_of_another_scan(tmp_path):
    current, labels, prior = body_pair()
    like = drawn(grid((30, 30, 30), (3.0, 3.0, 3.0)), lambda p: 900 + 3 * intensities(p))
    sitk.WriteImage(like, str(tmp_path / "like.nii.gz"))
    case = made(
        tmp_path,
        Pairing({"organ": 1}, match_histogram=str(tmp_path / "like.nii.gz")),
        current_image=current,
        current_label=labels,
        prior_image=prior,
        prior_label=labels,
    )
    body, body_of_like = (depth(positions(image)) > 0.1 for image in (current, like))
    wanted = np.median(sitk.GetArrayFromImage(like)[body_of_like])
    for image in arrays(case)[:2]:
        assert np.median(image[body]) == pytest.approx(wanted, rel=0.05)
    assert (arrays(case)[2] == sitk.GetArrayFromImage(labels)).all()
