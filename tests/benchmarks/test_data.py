"""What the experiments learn from: folds by patient, shifted images, scribbles, masks and pairs."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.data import acdc, hippocampus, lesions
from benchmarks.data.domain_shift import (
    HEART,
    HEART_CONTRAST,
    HIPPOCAMPUS,
    NOISE,
    case_generator,
    coarsened,
    drawn_parts,
    inverted,
    shifted,
    write_changed,
    write_side,
)
from benchmarks.data.folds import PatientFolds, grouped
from benchmarks.data.label_noise import made_wrong
from benchmarks.data.missing_labels import PretendedSources
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Dataset, Draw
from nnunet_ext import cli
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset

SIZES = {"source_train": 3, "source_val": 1, "pool": 10, "pilot": 5, "validation": 3, "test": 2}
SIZE = (9, 8, 7)
DRAW = Draw(seed=1, fold=2, model=None, device="cpu")


def volume(seed=0, shape=SIZE):
    return np.random.default_rng(seed).gamma(2.0, 30.0, size=shape)


def write_image(file, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 4.0))
    image.SetOrigin((3.0, -2.0, 10.0))
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))


def write_case(folder, case, size):
    labels, scribbles = np.zeros(size, np.uint8), np.full(size, 4, np.uint8)
    labels[1, 2:5, 2:4], labels[1, 2:5, 4], labels[1, 2:5, 5] = 1, 2, 3
    scribbles[1, 3, 2:6], scribbles[1, 7] = labels[1, 3, 2:6], 0
    write_image(folder / "imagesTr" / f"{case}_0000.nii.gz", volume(len(case), size).astype(np.float32))
    write_image(folder / "labelsTr" / f"{case}.nii.gz", scribbles)
    write_image(folder / "labelsTr_dense" / f"{case}.nii.gz", labels)


def array(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


# ---------------------------------------------------------------------- folds

GROUPS = [{f"p{number}{one}": [f"p{number}{one}_a", f"p{number}{one}_b"] for one in range(4)} for number in range(5)]
FOLDS = PatientFolds(lambda: GROUPS, pilot_train=4, most_tested=3)


def patients(cases):
    return {case[:3] for case in cases}


def test_no_patient_is_in_training_and_test():
    for fold in FOLDS((2, 7, None), range(5)):
        assert fold["train"]
        assert not patients(fold["train"]) & patients(fold["val"])
        assert len(fold["val"]) == 2 * 3


def test_pilot_has_patients_who_are_in_no_test():
    pilot, *folds = FOLDS((3, None), range(3))
    assert patients(pilot["val"]) < GROUPS[3].keys()
    assert patients(pilot["train"]) < GROUPS[4].keys()
    assert len(patients(pilot["train"])) == 3
    tested = {patient for fold in folds for patient in patients(fold["val"])}
    assert not tested & (GROUPS[3].keys() | GROUPS[4].keys())


def test_fewer_training_patients_are_among_more_and_test_the_same():
    _, *folds = FOLDS((2, 7, None), (0, 1))
    for seed in (0, 1):
        few, more, everyone = (patients(folds[2 * size + seed]["train"]) for size in range(3))
        assert few < more < everyone
        assert (len(few), len(more), len(everyone)) == (2, 7, 16)
        assert len({tuple(folds[2 * size + seed]["val"]) for size in range(3)}) == 1
    assert folds[0]["train"] != folds[1]["train"]


def test_seeds_that_share_a_group_test_the_same_patients():
    _, *folds = FOLDS((2,), range(4))
    assert folds[0]["val"] == folds[3]["val"]
    assert folds[0]["train"] != folds[3]["train"]


def test_more_training_patients_than_there_are_is_refused():
    with pytest.raises(UserError, match="wants 17 patients to train on; there are 16"):
        replace(FOLDS, pilot_size=2)((17,), (0,))


def test_patient_in_two_validation_sets_is_refused():
    assert grouped([["a_1", "a_2"], ["b_1"]], acdc.patient_of) == [{"a": ["a_1", "a_2"]}, {"b": ["b_1"]}]
    with pytest.raises(UserError, match="a is in the validation sets of the folds 0 and 1"):
        grouped([["a_1"], ["a_2"]], acdc.patient_of)


# ---------------------------------------------------------------------- domain shift


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
    write_case(tmp_path, "a", SIZE)
    source, target = tmp_path / "imagesTr" / "a_0000.nii.gz", tmp_path / "shifted.nii.gz"
    write_changed(source, target, "a", shifted)
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


def test_shots_are_nested_draws_from_the_pool(raw):
    shift = replace(HIPPOCAMPUS, sizes=SIZES)
    parts = shift.parts()
    pilot, *folds = shift.target_folds((5, 1, 10), (0, 1, 2))
    assert pilot == {"train": sorted(parts["pilot"][:5]), "val": sorted(parts["validation"])}
    for seed in range(3):
        five, one, ten = (set(folds[3 * size + seed]["train"]) for size in range(3))
        assert (len(one), len(five), len(ten)) == (1, 5, 10)
        assert one < five < ten <= set(parts["pool"])
    assert [(len(fold["train"]), len(fold["val"])) for fold in shift.source_folds((), ())] == [(3, 1)]


@pytest.mark.parametrize("shift", [HIPPOCAMPUS, HEART, HEART_CONTRAST], ids=lambda shift: shift.name)
def test_source_and_target_share_no_training_case_and_all_test_cases(shift, raw):
    shift = replace(shift, sizes=SIZES)
    source, target = raw / "Dataset804_Source", raw / "Dataset805_Target"
    write_side(source, DRAW, shift=shift, is_target=False)
    write_side(target, DRAW, shift=shift, is_target=True)
    trained, tested = (
        [{file.name for file in (folder / part).iterdir()} for folder in (source, target)]
        for part in ("labelsTr", "labelsTs")
    )
    assert [len(cases) for cases in trained] == [4, 18]
    assert not trained[0] & trained[1]
    assert tested[0] == tested[1]
    assert not tested[0] & (trained[0] | trained[1])
    assert "ignore" not in read_json(target / "dataset.json")["labels"]
    name = f"{min(tested[0]).removesuffix('.nii.gz')}_0000.nii.gz"
    originals = [files[name.removesuffix("_0000.nii.gz")][0] for files in shift.files()]
    assert (source / "imagesTs" / name).read_bytes() == originals[0].read_bytes()
    if shift.change:
        correlation = np.corrcoef(array(target / "imagesTs" / name).ravel(), array(originals[1]).ravel())[0, 1]
        assert correlation < -0.3
    else:
        assert (target / "imagesTs" / name).read_bytes() == originals[1].read_bytes()


# ---------------------------------------------------------------------- the user's datasets


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """nnUNet_raw with little of each original."""
    folder = tmp_path / "raw ü"
    for part in ("raw ü", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part.split()[0]}", str(tmp_path / part))
        (tmp_path / part).mkdir()
    heart, pairs = folder / acdc.ORIGIN, []
    for patient in [f"patient{number:03d}" for number in range(25)]:
        write_case(heart, f"{patient}_frame01", (3, 9, 8))
        write_case(heart, f"{patient}_frame09", (3, 8, 8))
        pairs.append({"patient": patient, "prior": f"{patient}_frame01", "current": f"{patient}_frame09"})
    write_json(heart / "two_phase_pairs.json", pairs)
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    content = {"channel_names": {"0": "cineMRI"}, "labels": labels, "numTraining": 50, "file_ending": ".nii.gz"}
    write_json(heart / "dataset.json", content)
    groups = [[pair[phase] for pair in pairs[number::5] for phase in ("prior", "current")] for number in range(5)]
    write_json(heart / "splits_final.json", [{"train": [], "val": group} for group in groups])
    brain = folder / hippocampus.ORIGIN
    for number in range(2, 51):  # the first side of the first brain is not there
        write_case(brain, f"hippocampus_{number:03d}", SIZE)
    write_json(brain / "dataset.json", {**content, "numTraining": 49})
    return folder


def test_groups_keep_both_scans_of_a_patient_together(raw):
    assert [len(group) for group in acdc.scan_groups()] == [5] * 5
    assert acdc.scan_groups()[1]["patient001"] == ["patient001_frame01", "patient001_frame09"]
    assert acdc.patient_groups()[1]["patient001"] == ["patient001"]
    assert [len(group) for group in hippocampus.groups()] == [5] * 5
    brains = {person: cases for group in hippocampus.groups() for person, cases in group.items()}
    assert brains["person_001"] == ["hippocampus_002"]
    assert brains["person_002"] == ["hippocampus_003", "hippocampus_004"]
    assert len({case for cases in brains.values() for case in cases}) == 49
    assert lesions.patient_of("mslesseg_P14_T1_x000y064z064") == "mslesseg_P14"


def test_agreement_of_neighbours_shows_which_cases_are_of_one_brain(raw):
    volume_of = np.random.default_rng(0).permutation(np.arange(20, 46))  # of a brain: 2k - 1 and 2k share it
    for number in range(2, 51):
        labels = np.zeros(SIZE, np.uint8)
        labels.ravel()[: volume_of[(number + 1) // 2]] = 1
        write_image(raw / hippocampus.ORIGIN / "labelsTr" / f"hippocampus_{number:03d}.nii.gz", labels)
    pairs, agreement = hippocampus.neighbours_agreement(1)
    assert (pairs, agreement) == (24, pytest.approx(1.0))
    pairs, agreement = hippocampus.neighbours_agreement(0)
    assert pairs == 24
    assert abs(agreement) < 0.5


def test_linked_dataset_is_the_original_but_for_the_folds(raw):
    linked(raw / "Dataset811_Hippocampus", DRAW, name=acdc.ORIGIN)
    found = {path.name for path in (raw / "Dataset811_Hippocampus").iterdir()}
    assert found == {"imagesTr", "labelsTr", "labelsTr_dense", "dataset.json", "two_phase_pairs.json"}


def test_scribbles_and_masks_are_of_the_same_images(raw):
    acdc.write_labels(raw / "Dataset851_Scribbles", DRAW, is_dense=False)
    acdc.write_labels(raw / "Dataset852_Dense", DRAW, is_dense=True)
    scribbles, dense = read_raw_dataset("851"), read_raw_dataset("852")
    case = "patient003_frame09"
    images = {dataset.cases[case].images[0].resolve() for dataset in (scribbles, dense)}
    assert images == {(raw / acdc.ORIGIN / "imagesTr" / f"{case}_0000.nii.gz").resolve()}
    masks = array(raw / acdc.ORIGIN / acdc.MASKS / f"{case}.nii.gz")
    assert (array(dense.cases[case].label) == masks).all()
    assert (array(scribbles.folder / acdc.MASKS / f"{case}.nii.gz") == masks).all()
    assert 4 in array(scribbles.cases[case].label)
    assert "ignore" not in dense.description["labels"]


def test_original_without_masks_is_refused(raw):
    shutil.rmtree(raw / acdc.ORIGIN / acdc.MASKS)
    with pytest.raises(UserError, match="50 cases have no mask"):
        acdc.write_labels(raw / "Dataset851_Scribbles", DRAW, is_dense=False)


def test_prior_is_withheld_in_its_channels_and_only_there(raw):
    pairs = raw / "Dataset841_Pairs"
    assert cli.main(acdc.pairs(pairs, DRAW)[1:]) == 0
    assert len((raw.parent / "pairs.csv").read_text().splitlines()) == 1 + 25
    acdc.write_current(raw / "Dataset843_Current", DRAW, source=pairs.name)
    acdc.write_withheld(raw / "Dataset844_None", DRAW, source=pairs.name)
    acdc.write_withheld(raw / "Dataset845_Half", DRAW, source=pairs.name, share=0.5)
    whole, current, none, half = (read_raw_dataset(number) for number in ("841", "843", "844", "845"))
    for name, case in whole.cases.items():
        given = [array(image) for image in case.images]
        assert given[1].any()
        assert (array(current.cases[name].images[0]) == given[0]).all()
        assert len(current.cases[name].images) == 1
        first, *others = [array(image) for image in none.cases[name].images]
        assert (first == given[0]).all()
        assert len(others) == len(given) - 1
        assert not any(other.any() for other in others)
    withheld = [name for name, case in half.cases.items() if not array(case.images[1]).any()]
    assert len(withheld) == 12


def test_a_misaligned_prior_is_moved_by_its_millimetres_in_the_slices_and_nothing_else_is(tmp_path):
    voxels = np.zeros((3, 40, 40), np.uint8)
    voxels[1, 20, 20] = 1
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 0.5, 7.0))
    image.SetDirection((0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))  # the grid's first axis is the world's second
    sitk.WriteImage(image, str(tmp_path / "prior.nii.gz"))
    acdc.write_moved(tmp_path / "prior.nii.gz", tmp_path / "moved.nii.gz", (6.0, -5.0), is_binary=True)
    assert np.argwhere(array(tmp_path / "moved.nii.gz")).tolist() == [[1, 10, 23]]


def test_every_channel_of_a_misaligned_prior_moves_and_the_current_scan_stays(raw):
    pairs = raw / "Dataset841_Pairs"
    assert cli.main(acdc.pairs(pairs, DRAW)[1:]) == 0
    acdc.write_misaligned(raw / "Dataset846_Off", DRAW, source=pairs.name, millimetres=5.0)
    whole, moved = read_raw_dataset("841"), read_raw_dataset("846")
    assert roles_of_dataset(moved.description) == roles_of_dataset(whole.description)
    for name in whole.cases:
        before, after = ([array(image) for image in dataset.cases[name].images] for dataset in (whole, moved))
        assert (before[0] == after[0]).all()
        assert all((one != other).any() for one, other in zip(before[1:], after[1:]))
        assert set(np.unique(after[2])) <= {0, 1}


def test_a_self_training_labels_every_case_but_those_with_labels(raw, tmp_path):
    names = sorted(read_raw_dataset(acdc.ORIGIN).cases)
    labelled = names[:3]
    draw = replace(DRAW, model=tmp_path / "model")
    for _ in range(2):  # the second time after an interruption
        command = acdc.self_taught(raw / "Dataset912_Taught", draw, labelled=lambda fold: names[: fold + 1])
    assert command[2:6] == [str(tmp_path / "model"), "-d", "952", "-o"]
    opened = read_raw_dataset("952")
    assert sorted(opened.cases) == names
    for name, case in opened.cases.items():
        found = array(case.label)
        mask = array(raw / acdc.ORIGIN / "labelsTr_dense" / case.label.name)
        assert (found == (mask if name in labelled else 4)).all()


def test_instances_are_drawn_by_the_seed_and_completed_by_the_teacher(tmp_path):
    command = lesions.simulated(tmp_path / "Dataset731_New", DRAW, options=["--keep", "0.3"])
    assert command[2:] == ["instances", lesions.ORIGIN, "-o", "Dataset731_New", "--keep", "0.3", "--seed", "1"]
    draw = replace(DRAW, model=tmp_path / "model")
    command = lesions.completed(tmp_path / "Dataset762_New", draw, number=730)
    assert command[1:8] == ["complete", str(tmp_path / "model"), "-d", "731", "-o", "Dataset762_New", "-f"]


# ---------------------------------------------------------------------- missing labels


def test_pretended_sources_have_the_lists_that_the_command_writes(raw):
    acdc.write_masks(raw / "Dataset881_Heart", DRAW)
    sources = PretendedSources(
        Dataset(881, "Heart", acdc.write_masks),
        groups=acdc.scan_groups,
        folds=PatientFolds(acdc.scan_groups, pilot_train=4, pilot_size=4),
        sources=(("RV",), ("MYO", "LV"), ("RV", "MYO", "LV")),
        pattern="patient[0-9]+",
    )
    merged, some = sources.merged, sources.with_labels(883, "Some", ["MYO", "LV"])
    assert merged.number == 882
    assert sources.parts == [("RV",), ("MYO", "LV")]
    for dataset in (merged, some):
        assert cli.main(list(dataset.make(raw / f"Dataset{dataset.number}_{dataset.title}", DRAW))[1:]) == 0
    lists = read_raw_dataset("882").description["nnunet_ext"]["annotated_labels"]
    assert {case: list(labels) for case, labels in sources.lists().items()} == lists
    assert all(
        labels == ["MYO", "LV"]
        for labels in read_raw_dataset("883").description["nnunet_ext"]["annotated_labels"].values()
    )
    for everyone, fold in zip(merged.folds((6,), (0, 1)), some.folds((6,), (0, 1))):
        assert fold["val"] == everyone["val"]
        assert fold["train"] == [case for case in everyone["train"] if "LV" in lists[case]]


def test_wrong_labels_are_drawn_by_the_seed(raw):
    acdc.write_masks(raw / "Dataset900_Right", DRAW)
    command = made_wrong(raw / "Dataset902_Wrong", DRAW, source=900, rate=0.5, size=5.0)
    assert command[2:] == [
        *("noise", "900", "-o", "Dataset902_Wrong", "--rate", "0.5"),
        *("--kinds", "dilation", "erosion", "shift", "swap", "--size", "5", "--seed", "1"),
    ]
    assert cli.main(list(command)[1:]) == 0
    right, wrong = read_raw_dataset("900"), read_raw_dataset("902")
    assert list(right.cases) == list(wrong.cases)
    assert any((array(case.label) != array(wrong.cases[name].label)).any() for name, case in right.cases.items())
