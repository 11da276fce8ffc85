from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nnunet_ext.preprocessing.pairs import registration_pictures
from nnunet_ext.preprocessing.pairs.image_registration import Registration
from nnunet_ext.preprocessing.pairs.registration_pictures import registration_picture
from support.bodies import drawn, grid, intensities, rigid, transformed

FOUND = Registration(
    transform=sitk.Transform(3, sitk.sitkIdentity),
    kind="bspline",
    reached="affine",
    similarity_before=0.1,
    similarity_after=0.4321,
    mean_displacement=7.25,
    max_displacement=11.5,
    inside=0.97,
    problem="bspline: the deformation folds",
)


@pytest.fixture
def figures(monkeypatch):
    """Those that are drawn."""
    made = []

    class Kept(registration_pictures.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(registration_pictures, "Figure", Kept)
    return made


def pictured(size, spacing):
    on = grid(size, spacing)
    shift = rigid((0,) * (1 if len(size) == 2 else 3), (12,) + (0,) * (len(size) - 1))
    current = drawn(on, intensities)
    return current, drawn(on, intensities, placed=transformed(shift)), drawn(on, intensities)


@pytest.mark.parametrize(
    ("size", "spacing"), [((44, 40, 44), (2.0, 2.0, 2.0)), ((44, 40, 9), (2.0, 2.0, 10.0)), ((44, 40), (2.0, 2.0))]
)
def test_disagreement_is_coloured_before_and_grey_after(tmp_path, size, spacing):
    file = tmp_path / "cäse $1_2$.png"
    registration_picture(*pictured(size, spacing), file, FOUND)
    picture = matplotlib.image.imread(file)[..., :3]
    # of all coloured pixels nearly all lie in the first row of three, or the first picture of a two-dimensional image
    coloured = np.ptp(picture, axis=-1) > 0.2
    coloured = coloured.T if len(size) == 2 else coloured
    third = len(coloured) // 3
    assert coloured[:third].mean() > 0.02
    assert coloured[third:].mean() < 0.1 * coloured[:third].mean()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("orientation", ["RAS", "LIP", "PIR"])
def test_planes_are_the_patients_however_the_scan_was_acquired(tmp_path, orientation):
    images = pictured((44, 40, 20), (2.0, 2.0, 4.0))
    files = [tmp_path / folder / "case.png" for folder in ("one", "other")]
    for file, shown in zip(files, (images, [sitk.DICOMOrient(image, orientation) for image in images])):
        file.parent.mkdir()
        registration_picture(*shown, file, FOUND)
    one, other = (matplotlib.image.imread(file) for file in files)
    np.testing.assert_allclose(one, other, atol=0.02)


@pytest.mark.parametrize("size", [(20, 60), (60, 20), (44, 40, 20)])
def test_all_of_a_long_problem_can_be_read(tmp_path, figures, size):
    """No text is wider than the picture."""
    found = replace(FOUND, problem="bspline: the body in the current image has 76 voxels along its longest side, " * 3)
    registration_picture(*pictured(size, (2.0,) * len(size)), tmp_path / "case_7.png", found)
    (figure,) = figures
    (title,) = (text for text in figure.texts if "PROBLEM" in text.get_text())
    extent = title.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.width


def test_figures_and_the_problem_are_printed(tmp_path, figures):
    registration_picture(*pictured((44, 40), (2.0, 2.0)), tmp_path / "case_7.png", FOUND)
    printed = figures[0].get_suptitle()
    for text in ("case_7", "bspline (reached: affine)", "0.100 → 0.432", "7.2 mm", "11.5", "97%", "PROBLEM", "folds"):
        assert text in printed


def test_nothing_is_left_of_a_picture_that_fails(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(registration_pictures.Figure, "savefig", full)
    with pytest.raises(OSError, match="no space"):
        registration_picture(*pictured((44, 40), (2.0, 2.0)), tmp_path / "a.png", FOUND)
    assert list(tmp_path.iterdir()) == []
