import numpy as np

from nnunet_ext.preprocessing.simulate.scribble_statistics import Counts, count_scribbles, scribble_table

VALUES = {"background": 0, "organ": 1, "tumour": 2}
# two slices of 2 × 4; 7 is not a class
DENSE = np.array([[[0, 0, 1, 1], [0, 0, 1, 7]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
SCRIBBLES = np.array([[[0, 3, 1, 3], [1, 3, 1, 0]], [[3, 3, 3, 3], [3, 3, 3, 3]]])


def test_counts_of_a_case_by_hand():
    counts = count_scribbles(SCRIBBLES, DENSE, VALUES, axis=0)
    assert counts.classes == {
        "background": Counts(voxels=12, scribbled=1, right=1, slices=2, annotated=1),
        "organ": Counts(voxels=3, scribbled=3, right=2, slices=1, annotated=1),  # one of them is on background
        "tumour": Counts(voxels=0, scribbled=0, right=0, slices=0, annotated=0),
    }
    assert counts.whole == Counts(voxels=15, scribbled=4, right=3, slices=2, annotated=1)


def test_slices_are_counted_across_the_axis():
    counts = count_scribbles(SCRIBBLES, DENSE, VALUES, axis=2)
    assert (counts.whole.slices, counts.whole.annotated) == (4, 2)
    assert (counts.classes["organ"].slices, counts.classes["organ"].annotated) == (2, 1)


def test_table_has_median_range_and_agreement_over_cases():
    full = np.where(DENSE == 7, 0, DENSE)
    other = np.where(full == 0, 0, 3)
    cases = [count_scribbles(*maps, VALUES, axis=0) for maps in ((SCRIBBLES, DENSE), (full, full), (other, full))]
    rows = {row[0]: row[1:] for row in scribble_table(cases)}
    assert rows["organ"] == ["3", "2", "3", "6", "100.00 %", "0.00 %", "100.00 %", "83.33 %", "66.67 %"]
    assert rows["tumour"] == ["0", "0", "0", "0", *["–"] * 5]
    # 4 of 15, 16 of 16 and 13 of 16 voxels
    assert rows["all"][4:7] == ["81.25 %", "26.67 %", "100.00 %"]
    assert rows["all"][7:] == ["96.97 %", "75.00 %"]
