"""The learning curve, and the correction of labels, voxel by voxel in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from nnunet_ext.losses.early_learning import (
    corrected_labels,
    corrected_regions,
    label_agreement,
    lasting_slope_fall,
    region_agreement,
    slope_fall,
)


def iou(t, a, b, c):
    return a * (1 - math.exp(-(t**b) / c))


def fall(last, *parameters):
    """By finite differences."""
    step = 1e-6
    slopes = [(iou(t + step, *parameters) - iou(t - step, *parameters)) / (2 * step) for t in (1, last)]
    return 1 - slopes[1] / slopes[0]


@pytest.mark.parametrize("parameters", [(0.9, 0.8, 2.0), (0.7, 0.5, 1.0), (1.0, 0.95, 5.0)])
@pytest.mark.parametrize("epochs", [4, 8, 20])
def test_the_slope_of_a_known_curve_falls_as_it_does(parameters, epochs):
    values = [iou(t, *parameters) for t in range(1, epochs + 1)]
    assert slope_fall(values) == pytest.approx(fall(epochs, *parameters), abs=2e-3)


def test_of_noisy_values_it_is_that_of_the_best_curve_by_search():
    rng = np.random.default_rng(0)
    t = np.arange(1, 13)
    values = np.clip([iou(one, 0.8, 0.7, 1.5) for one in t] + rng.normal(0, 0.02, 12), 0, 1)
    weights = 1 / np.geomspace(1, 0.1, 12) ** 2
    best = math.inf, 0.0
    for b, c in itertools.product(np.linspace(0.02, 1, 197), np.geomspace(0.05, 50, 400)):
        shape = 1 - np.exp(-(t**b) / c)
        a = min(1.0, (weights * shape * values).sum() / (weights * shape**2).sum())  # the best a of given b and c
        best = min(best, ((weights * (values - a * shape) ** 2).sum(), fall(12, a, b, c)))
    assert slope_fall(values.tolist()) == pytest.approx(best[1], abs=0.01)


def test_epochs_before_a_class_is_found_do_not_count_and_missing_ones_are_left_out():
    values = [iou(t, 0.9, 0.8, 2.0) for t in range(1, 11)]
    assert slope_fall([None, 0.0, 0.05, *values]) == pytest.approx(slope_fall(values))
    holes = [*values[:4], None, *values[5:7], None, *values[8:]]
    assert slope_fall(holes) == pytest.approx(fall(10, 0.9, 0.8, 2.0), abs=5e-3)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None, None],
        [0.5, 0.6],
        [0.0] * 20,
        [0.09] * 20,
        [0.3, 0.5, 0.6, 0.05],
        [0.3, 0.5, 0.6, None],
        [0.3, 0.5, None],
    ],
)
def test_nothing_is_said_of_a_class_that_is_not_found(values):
    assert slope_fall(values) is None


def test_a_slow_and_noisy_curve_that_single_fits_take_for_flat_is_not():
    """IoU from 0.12 to 0.8 with a time constant of 60 epochs: after 20 its slope has fallen by 28 %."""
    rng = np.random.default_rng(0)
    values = [0.12 + 0.68 * (1 - math.exp(-t / 60)) + rng.normal(0, 0.02) for t in range(1, 21)]
    epochs = range(5, 21)
    single = [slope_fall(values[:epoch]) for epoch in epochs]
    lasting = [lasting_slope_fall(values[:epoch], min_epochs=5) for epoch in epochs]
    assert any(fall is not None and fall > 0.9 for fall in single)
    assert all(fall is None or fall < 0.9 for fall in lasting)
    assert lasting[4:] == [min(single[n - 4 : n + 1]) for n in range(4, len(single))]


def test_a_lasting_fall_of_a_curve_without_noise_is_that_of_four_epochs_before():
    values = [iou(t, 0.9, 0.8, 2.0) for t in range(1, 16)]
    assert lasting_slope_fall(values) == pytest.approx(slope_fall(values[:-4]))
    assert lasting_slope_fall(values, min_epochs=15) is not None
    assert lasting_slope_fall(values, min_epochs=16) is None
    assert lasting_slope_fall(values[:6]) is None  # the first fit needs three epochs
    assert lasting_slope_fall([*values, None]) is None
    assert lasting_slope_fall([*values[:12], None, *values[13:]]) is None


@pytest.mark.parametrize("min_epochs", [3, 4, 5, 6, 7])
def test_the_five_fits_need_seven_epochs_however_few_are_asked_for(min_epochs):
    values = [iou(t, 0.9, 0.8, 2.0) for t in range(1, 8)]
    assert lasting_slope_fall(values[:6], min_epochs=min_epochs) is None
    assert lasting_slope_fall(values, min_epochs=min_epochs) == lasting_slope_fall(values) is not None
    assert lasting_slope_fall(values, min_epochs=8) is None


def test_a_fit_waits_for_so_many_epochs():
    values = [iou(t, 0.9, 0.8, 2.0) for t in range(1, 8)]
    assert slope_fall(values, min_epochs=8) is None
    assert slope_fall(values, min_epochs=7) is not None
    assert slope_fall([0.0, *values[:6]], min_epochs=7) is None


def test_a_class_that_is_known_from_the_start_has_a_flat_curve():
    assert slope_fall([0.8] * 40) > 0.9


def random_case(classes=4, shape=(3, 1, 5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn((shape[0], classes, *shape[2:]), generator=generator)
    labels = torch.randint(0, classes, shape, generator=generator)
    counts = torch.rand(shape, generator=generator) < 0.8
    labels[~counts] = 99  # whatever
    return logits, labels, counts


def softmax(values):
    exponentials = np.exp(values.double().numpy())
    return exponentials / exponentials.sum()


def places(shape):
    return itertools.product(range(shape[0]), *(range(side) for side in shape[2:]))


def test_agreement_of_labels_is_counted_by_hand():
    logits, labels, counts = random_case()
    known = torch.where(counts, labels, 0)
    expected = np.zeros((2, 4), int)
    for b, *place in places(labels.shape):
        at = (b, 0, *place)
        if counts[at]:
            own, given = int(softmax(logits[(b, slice(None), *place)]).argmax()), int(labels[at])
            for k in range(4):
                expected[:, k] += (own == k and given == k, own == k or given == k)
    assert label_agreement(logits, labels, counts).tolist() == expected.tolist()
    assert label_agreement(logits, known, counts).tolist() == expected.tolist()
    assert label_agreement(logits, labels, counts & False).tolist() == [[0] * 4] * 2


def test_agreement_of_regions_is_counted_by_hand():
    logits, _, counts = random_case()
    regions = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    expected = np.zeros((2, 4), int)
    for b, *place in places(logits.shape):
        for k in range(4):
            own, given = bool(logits[(b, k, *place)] > 0), bool(regions[(b, k, *place)])
            if counts[(b, 0, *place)]:
                expected[:, k] += (own and given, own or given)
    assert region_agreement(logits, regions, counts).tolist() == expected.tolist()


@pytest.mark.parametrize("is_open", [[1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize("confidence", [0.6, 0.9])
def test_labels_become_what_the_network_is_sure_of_among_open_classes(is_open, confidence):
    logits, labels, counts = random_case()
    expected, moved = labels.clone(), 0
    for b, *place in places(labels.shape):
        at, p = (b, 0, *place), softmax(logits[(b, slice(None), *place)])
        if counts[at] and p.max() > confidence and is_open[p.argmax()] and is_open[labels[at]]:
            moved += int(labels[at] != p.argmax())
            expected[at] = int(p.argmax())
    found, changed = corrected_labels(logits, labels, counts, torch.tensor(is_open).bool(), confidence=confidence)
    assert torch.equal(found, expected)
    assert torch.equal(changed, found != labels)
    assert changed.sum() == moved > 0


def test_regions_become_what_the_network_is_sure_of_each_by_itself():
    logits, _, counts = random_case()
    regions = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    is_open, expected = torch.tensor([True, False, True, True]), regions.clone()
    for b, k, *place in itertools.product(*map(range, logits.shape)):
        p = 1 / (1 + math.exp(-logits[(b, k, *place)].double().item()))
        if counts[(b, 0, *place)] and is_open[k] and (p > 0.8 or p < 1 - 0.8):
            expected[(b, k, *place)] = p > 0.5
    found, changed = corrected_regions(logits, regions.float(), counts, is_open, confidence=0.8)
    assert torch.equal(found, expected.float())
    assert torch.equal(changed, expected != regions)
    assert changed.any()


def test_half_precision_and_outputs_without_meaning_change_nothing_they_should_not():
    logits, labels, counts = random_case()
    everything = torch.ones(4, dtype=torch.bool)
    found, _ = corrected_labels(torch.full_like(logits, torch.nan), labels, counts, everything, confidence=0.8)
    assert torch.equal(found, labels)
    large = (2000 * logits).half()
    found, changed = corrected_labels(large, labels, counts, everything, confidence=0.8)
    assert torch.equal(found[counts], logits.argmax(1, keepdim=True)[counts])
    assert changed.any()
