import os

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.domain_shift import (
    NOISE,
    PILOT_FOLD,
    SEEDS,
    SHIFTS,
    SHOTS,
    Files,
    Shift,
    case_generator,
    coarsened,
    copy_image,
    drawn_parts,
    fold_number,
    inverted,
    origin_folder,
    shifted,
    target_folds,
    write_dataset,
    write_datasets,
    write_shifted,
)
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json

SIZES = {"source_train": 3, "source_val": 1, "pool": 10, "pilot": 5, "validation": 3, "test": 2}
PARTS = {"pilot": [f"p{n}" for n in range(7)], "validation": ["v2", "v0", "v1"], "pool": [f"c{n}" for n in range(20)]}


def volume(seed=0, shape=(9, 8, 7)):
    return np.random.default_rng(seed).gamma(2.0, 30.0, size=shape)


def write_case(folder, case, *, part="Tr", labels="labelsTr", scale=1.0):
    images = folder / f"images{part}"
    images.mkdir(parents=True, exist_ok=True)
    (folder / labels).mkdir(exist_ok=True)
    image = sitk.GetImageFromArray((volume(len(case)) * scale).astype(np.float32))
    image.SetSpacing((0.5, 1.5, 4.0))
    image.SetOrigin((3.0, -2.0, 10.0))
    image.SetDirection((0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(images / f"{case}_0000.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((9, 8, 7), np.uint8)), str(folder / labels / f"{case}.nii.gz"))


def test_inversion_swaps_the_limits_and_reverses_the_order():
    image = volume()
    low, high = np.percentile(image, (0.5, 99.5))
    found = inverted(image)
    inside = (image > low) & (image < high)
    assert found[inside] == pytest.approx(low + high - image[inside])
    assert (found.min(), found.max()) == pytest.approx((low, high))


def test_coarser_slices_keep_a_ramp_and_lose_what_alternates():
    ramp = np.broadcast_to(np.arange(21.0)[:, None, None], (21, 3, 2))
    # smoothing bends the ends; the last slice has no coarse slice beyond it
    assert coarsened(ramp)[4:-5] == pytest.approx(ramp[4:-5], abs=1e-2)
    assert coarsened(ramp[:20]).shape == (20, 3, 2)
    alternating = np.broadcast_to((-1.0) ** np.arange(21)[:, None, None], (21, 3, 2))
    assert np.abs(coarsened(alternating)[4:-5]).max() < 0.1


def test_single_slice_is_left_as_it_is():
    image = volume(shape=(1, 4, 5))
    assert coarsened(image) == pytest.approx(image)


def test_shift_is_the_same_for_images_of_every_scale():
    image = volume()
    small, large = (shifted(scale * image, case_generator("a")) for scale in (1.0, 2.0**14))
    assert large == pytest.approx(2.0**14 * small, rel=1e-5)
    assert small.dtype == np.float32


def test_noise_is_the_stated_share_of_the_range():
    image = np.zeros((40, 40, 40))
    image[:20] = 50.0
    found = shifted(image, case_generator("a"))
    assert found[25:].std() == pytest.approx(NOISE * 50, rel=0.05)
    assert found[25:].mean() == pytest.approx(50, abs=1)
    assert found[:15].mean() == pytest.approx(0, abs=1)


def test_noise_follows_from_the_name_of_the_case():
    one, again, other = (case_generator(name).normal(size=5) for name in ("case_1", "case_1", "case_2"))
    assert (one == again).all()
    assert (one != other).all()


def test_shifted_file_has_the_geometry_of_the_original(tmp_path):
    write_case(tmp_path, "a")
    source, target = tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "shifted.nii.gz"
    write_shifted(source, target, "a")
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(target))
    assert after.GetSize() == before.GetSize()
    assert after.GetSpacing() == before.GetSpacing()
    assert after.GetOrigin() == before.GetOrigin()
    assert after.GetDirection() == before.GetDirection()
    assert after.GetPixelID() == sitk.sitkFloat32
    expected = shifted(sitk.GetArrayFromImage(before).astype(np.float64), case_generator("a"))
    assert (sitk.GetArrayFromImage(after) == expected).all()


def test_parts_are_disjoint_and_do_not_depend_on_the_order_of_the_names():
    names = [f"case_{n}" for n in range(30)]
    parts = drawn_parts(names, SIZES)
    assert {part: len(cases) for part, cases in parts.items()} == SIZES
    assert len({case for cases in parts.values() for case in cases}) == sum(SIZES.values())
    assert drawn_parts(names[::-1], SIZES) == parts


def test_too_few_cases_are_refused():
    with pytest.raises(UserError, match="24 cases are needed, 5 are there"):
        drawn_parts(list("abcde"), SIZES)


def test_folds_are_drawn_from_the_pool_nested_and_by_seed():
    folds = target_folds(PARTS)
    assert len(folds) == 1 + len(SHOTS) * len(SEEDS)
    assert folds[PILOT_FOLD] == {"train": ["p0", "p1", "p2", "p3", "p4"], "val": ["v0", "v1", "v2"]}
    for seed in SEEDS:
        one, five, ten = (set(folds[fold_number(shots, seed)]["train"]) for shots in (1, 5, 10))
        assert (len(one), len(five), len(ten)) == (1, 5, 10)
        assert one < five < ten < set(PARTS["pool"])
        assert folds[fold_number(5, seed)]["val"] == ["v0", "v2"]
    assert len({tuple(folds[fold_number(5, seed)]["train"]) for seed in SEEDS}) == len(SEEDS)


def test_every_draw_has_a_fold_of_its_own():
    numbers = {fold_number(shots, seed) for shots in SHOTS for seed in SEEDS}
    assert numbers == set(range(1, 1 + len(SHOTS) * len(SEEDS)))


def test_dataset_that_cannot_be_written_whole_is_not_there(tmp_path):
    write_case(tmp_path / "origin", "a")
    files = Files(tmp_path / "origin/imagesTr/a_0000.nii.gz", tmp_path / "origin/labelsTr/a.nii.gz")

    def write(cases):
        folder = tmp_path / "Dataset900_New"
        write_dataset(folder, {"labels": {}}, training=cases, test={}, folds=[], write_image=copy_image)

    with pytest.raises(FileNotFoundError):
        write({"a": files, "b": Files(tmp_path / "none", tmp_path / "none")})
    assert not (tmp_path / "Dataset900_New").exists()
    write({"a": files})
    assert read_json(tmp_path / "Dataset900_New" / "dataset.json")["numTraining"] == 1
    assert sorted(os.listdir(tmp_path)) == ["Dataset900_New", "origin"]


def test_hippocampus_datasets_share_no_training_case_and_all_test_cases(tmp_path, monkeypatch):
    origin = tmp_path / "raw ü" / "Dataset004_Hippocampus"
    for number in range(30):
        write_case(origin, f"hippocampus_{number:03d}", scale=10.0 ** (number % 5))
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1}, "file_ending": ".nii.gz"}
    write_json(origin / "dataset.json", description)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw ü"))
    shift = Shift("hippocampus", origin.name, "Dataset804_HippocampusSource", "Dataset805_HippocampusShifted", SIZES)
    out = tmp_path / "out"
    out.mkdir()
    write_datasets(shift, out)
    source, target = out / shift.source, out / shift.target
    trained = [{name.removesuffix("_0000.nii.gz") for name in os.listdir(d / "imagesTr")} for d in (source, target)]
    tested = [{name.removesuffix("_0000.nii.gz") for name in os.listdir(d / "imagesTs")} for d in (source, target)]
    assert [len(cases) for cases in trained] == [4, 18]
    assert not trained[0] & trained[1]
    assert tested[0] == tested[1]
    assert not tested[0] & (trained[0] | trained[1])
    splits = read_json(source / "splits_final.json")
    assert [(len(fold["train"]), len(fold["val"])) for fold in splits] == [(3, 1)]
    assert {
        case for fold in read_json(target / "splits_final.json") for case in fold["train"] + fold["val"]
    } <= trained[1]
    case = min(tested[0])
    original, same, other = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        for file in (
            origin / "imagesTr" / f"{case}_0000.nii.gz",
            source / "imagesTs" / f"{case}_0000.nii.gz",
            target / "imagesTs" / f"{case}_0000.nii.gz",
        )
    )
    assert (same == original).all()
    assert np.corrcoef(other.ravel(), original.ravel())[0, 1] < -0.3
    for folder in (source, target):
        label = (folder / "labelsTs" / f"{case}.nii.gz").read_bytes()
        assert label == (origin / "labelsTr" / f"{case}.nii.gz").read_bytes()
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    write_datasets(shift, out)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_acdc_target_is_the_other_phase_of_other_patients_with_dense_masks(tmp_path, monkeypatch):
    origin = tmp_path / "raw" / "Dataset027_ACDCScribble"
    pairs = []
    for number in range(24):
        patient = f"patient{number:03d}"
        for phase in ("frame01", "frame12"):
            write_case(origin, f"{patient}_{phase}", labels="labelsTr_dense")
        pairs.append({"patient": patient, "prior": f"{patient}_frame01", "current": f"{patient}_frame12"})
    write_json(origin / "two_phase_pairs.json", pairs)
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    write_json(origin / "dataset.json", {"channel_names": {"0": "cineMRI"}, "labels": labels, "file_ending": ".nii.gz"})
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    shift = Shift("acdc", origin.name, "Dataset814_Source", "Dataset815_Target", SIZES)
    write_datasets(shift, tmp_path)
    source, target = tmp_path / shift.source, tmp_path / shift.target
    assert "ignore" not in read_json(target / "dataset.json")["labels"]
    trained = [set(os.listdir(folder / "labelsTr")) for folder in (source, target)]
    assert not trained[0] & trained[1]
    assert sorted(os.listdir(source / "imagesTs")) == sorted(os.listdir(target / "imagesTs"))
    name = sorted(os.listdir(target / "imagesTs"))[0]
    original = origin / "imagesTr" / name.replace("_0000", "_frame12_0000")
    assert (target / "imagesTs" / name).read_bytes() == original.read_bytes()


def test_missing_dataset_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(UserError, match="Dataset027_ACDCScribble"):
        origin_folder(SHIFTS["acdc"])
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(UserError, match="nnUNet_raw is not set"):
        origin_folder(SHIFTS["acdc"])
