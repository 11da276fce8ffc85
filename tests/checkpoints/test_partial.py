"""What transfers between architectures that differ, and what the report says of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from nnunet_ext.checkpoints.adaptation import KNOWN, adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.fit import Fit
from nnunet_ext.checkpoints.outcome import Adaptation
from nnunet_ext.checkpoints.sources.source import Source
from nnunet_ext.errors import UserError
from support.models import checkpoint_of, network_of
from support.public_weights import model, trained

FIVE_STAGES: dict[str, Any] = {
    "n_stages": 5,
    "features_per_stage": [4, 8, 12, 12, 12],
    "kernel_sizes": [[3, 3, 3]] * 5,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 4],
    "n_conv_per_stage": [2] * 5,
    "n_conv_per_stage_decoder": [1] * 4,
}
ANISOTROPIC: dict[str, Any] = {
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
}


def partial(origin: ModelDescription, target: ModelDescription, **options: Any) -> tuple[Any, Any, Adaptation]:
    source, network = trained(origin).double(), network_of(target).double()
    result = adapt(checkpoint_of(origin, source), network, target, keep_heads=True, partial=True, **options)
    network.load_state_dict(result.weights)
    return source, network, result


def outcomes(result: Adaptation, part: str) -> set[str]:
    return {tensor.outcome for tensor in result.tensors if tensor.key.startswith(part) and tensor.outcome != "unused"}


def test_stages_are_counted_from_the_full_resolution() -> None:
    source, network, result = partial(model(), model(**FIVE_STAGES))
    for stage in range(3):
        assert outcomes(result, f"encoder.stages.{stage}.") == {"copied"}
    for stage in (3, 4):
        assert outcomes(result, f"encoder.stages.{stage}.") == {"random"}
    data = torch.randn(1, 1, 32, 32, 32, dtype=torch.float64)
    for mine, theirs in zip(network.encoder(data)[:3], source.encoder(data), strict=True):
        assert torch.equal(mine, theirs)
    # the decoder's two stages of high resolution are the source's, under other numbers
    for own, theirs in ((2, 0), (3, 1)):
        assert torch.equal(network.decoder.transpconvs[own].weight, source.decoder.transpconvs[theirs].weight)
        key = f"stages.{own}.convs.0.conv.weight"
        assert torch.equal(
            network.decoder.state_dict()[key], source.decoder.state_dict()[key.replace(str(own), str(theirs), 1)]
        )
    assert outcomes(result, "decoder.transpconvs.0.") == {"random"}
    assert "from the source's" in result.table()


def test_fewer_stages_take_the_ones_of_high_resolution() -> None:
    source, network, result = partial(model(**FIVE_STAGES), model())
    assert outcomes(result, "encoder.") == {"copied"}
    assert outcomes(result, "decoder.") == {"copied"}
    assert torch.equal(network.decoder.transpconvs[0].weight, source.decoder.transpconvs[2].weight)
    data = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    for mine, theirs in zip(network.encoder(data), source.encoder(torch.nn.functional.pad(data, [0, 16] * 3))):
        assert mine.shape[1] == theirs.shape[1]


@pytest.mark.parametrize("family", ["plain", "resenc"])
def test_kernels_are_averaged_for_an_anisotropic_target(family: str) -> None:
    _, _, result = partial(model(family=family), model(family=family, **ANISOTROPIC))
    assert "kernel 3x3x3 -> 1x3x3" in result.table()
    assert "kernel 2x2x2 -> 1x2x2" in result.table()
    assert outcomes(result, "encoder.") == {"copied", "adapted"}
    assert outcomes(result, "decoder.transpconvs.") == {"copied", "adapted"}
    assert result.entries()[0] == result.entries()[1]


def test_isotropic_target_of_a_flat_source_computes_the_same_in_its_first_stage() -> None:
    source, network, _ = partial(
        model(**{**ANISOTROPIC, "strides": model().architecture()["arch_kwargs"]["strides"]}), model()
    )
    data = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    for mine, theirs in zip(network(data), source(data), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_wider_stages_stay_random() -> None:
    _, _, result = partial(model(), model(features_per_stage=[4, 8, 16]))
    assert outcomes(result, "encoder.stages.2.") == {"random"}
    assert outcomes(result, "encoder.stages.0.") == {"copied"}
    assert 0 < result.entries()[0] < result.entries()[1]


def test_kernel_and_channels_of_the_first_convolution_change_together() -> None:
    target = model(channels=("T1", "CT"), **ANISOTROPIC)
    source, network, result = partial(model(), target, channel_rule="name")
    first = result.tensors[0]
    assert first.reason == "kernel 3x3x3 -> 1x3x3; input channels by name: CT; random: T1"
    own, theirs = (one.encoder.stages[0][0].convs[0].conv.weight for one in (network, source))
    torch.testing.assert_close(own[:, 1], theirs[:, 0].mean(dim=1, keepdim=True))
    assert result.known[first.key].flatten().tolist() == [False, True]


def test_random_entries_of_an_adapted_file_are_not_taken_for_the_sources() -> None:
    origin, target = model(), model(channels=("T1", "CT"), labels={"background": 0, "shell": 1, "new": 2})
    _, network, first = partial(origin, target, channel_rule="name")
    content = checkpoint_of(target, network)
    content["nnunet_ext"] = {KNOWN: {key: mask for key, mask in first.known.items() if not mask.all()}}
    again = adapt(content, network_of(target), target, keep_heads=True)
    assert {tensor.outcome for tensor in again.tensors} == {"copied"}
    assert again.entries() == first.entries()
    assert again.entries()[0] < again.entries()[1]


def test_random_entries_are_told_when_an_adapted_file_is_adapted_again() -> None:
    """Rows and channels change places, and a mean over channels of which one is random is random."""
    target = model(channels=("T1", "CT"), labels={"background": 0, "shell": 1, "new": 2})
    _, network, first = partial(model(), target, channel_rule="name")
    content = checkpoint_of(target, network)
    content["nnunet_ext"] = {KNOWN: {key: mask for key, mask in first.known.items() if not mask.all()}}

    def known(channels: tuple[str, ...], part: str) -> list[bool]:
        labels = {"background": 0, "new": 1, "other": 2, "shell": 3}
        again = model(channels=channels, labels=labels)
        found = adapt(content, network_of(again), again, keep_heads=True, channel_rule="name").known
        return next(one for key, one in found.items() if key.startswith(part)).flatten(1).any(dim=1).tolist()

    assert known(("T1", "CT"), "decoder.seg_layers.1.weight") == [True, False, False, True]

    def channels(*names: str) -> list[bool]:
        again = model(channels=names, labels=dict(target.dataset_json["labels"]))
        found = adapt(content, network_of(again), again, keep_heads=True).known
        return found[first.tensors[0].key].expand(4, len(names), 3, 3, 3)[0].flatten(1).any(dim=1).tolist()

    assert channels("CT", "T1") == [True, False]
    assert channels("FLAIR", "T2", "CT") == [False, False, False]


def test_masks_of_another_shape_are_named() -> None:
    content = checkpoint_of(model(), network_of(model()))
    content["nnunet_ext"] = {KNOWN: {"decoder.seg_layers.1.weight": torch.ones(7, dtype=torch.bool)}}
    with pytest.raises(UserError, match=r"says of decoder\.seg_layers\.1\.weight which entries are random"):
        adapt(content, network_of(model()), model(), keep_heads=True)


# ---------------------------------------------------------------------- the report


def fit(origin: ModelDescription, target: ModelDescription) -> Fit:
    _, _, result = partial(origin, target)
    source = Source(checkpoint_of(origin, trained(origin)), "nnunet", ("A remark.",), "Someone, 2020", "CC BY 4.0")
    return Fit.of(source, result, target, file="a model.pth")


def test_report_says_share_keys_and_commands() -> None:
    report = fit(model(), model(dataset="Dataset005_Target", **ANISOTROPIC))
    text = report.text()
    assert "Licence: CC BY 4.0. See that it allows what you plan." in text
    assert "Citation: Someone, 2020" in text
    assert "A remark." in text
    assert "come from the source (100.0 %)" in text
    assert "kernel_sizes: [[3, 3, 3], [3, 3, 3], [3, 3, 3]] -> [[1, 3, 3], [3, 3, 3], [3, 3, 3]]" in text
    assert "nnunet_ext plan --like 'a model.pth' -d 5" in text
    record = json.loads(json.dumps(report.record()))
    assert set(record["would_raise_it"]) == {"kernel_sizes", "strides"}
    assert sum(part["parameters"] for part in record["parts"]) == record["parameters"]["all"]
    assert record["source"]["licence"] == "CC BY 4.0"


def test_report_names_images_that_differ() -> None:
    target = model()
    configuration = {**target.plans["configurations"]["3d_fullres"], "spacing": [3.0, 1.0, 1.0]}
    plans = {**target.plans, "configurations": {"3d_fullres": configuration}}
    report = fit(model(), ModelDescription(plans, "3d_fullres", target.dataset_json))
    assert report.data == {"spacing": "[1.5, 1.25, 1.25] -> [3.0, 1.0, 1.0]"}
    assert "The images differ from those of the source" in report.text()
    assert report.commands == ()


def test_same_normalisation_of_more_channels_is_no_difference() -> None:
    target = model(channels=("CT", "CT"))
    both = {"normalization_schemes": ["CTNormalization"] * 2, "use_mask_for_norm": [False] * 2}
    configuration = {**target.plans["configurations"]["3d_fullres"], **both}
    plans = {**target.plans, "configurations": {"3d_fullres": configuration}}
    assert fit(model(), ModelDescription(plans, "3d_fullres", target.dataset_json)).data == {}


def with_normalization(target: ModelDescription, *schemes: str) -> ModelDescription:
    """The same with other normalisations."""
    changed = {"normalization_schemes": list(schemes), "use_mask_for_norm": [False] * len(schemes)}
    configuration = {**target.plans["configurations"]["3d_fullres"], **changed}
    plans = {**target.plans, "configurations": {"3d_fullres": configuration}}
    return ModelDescription(plans, "3d_fullres", target.dataset_json)


def test_normalisation_is_compared_channel_by_channel_of_the_same_name() -> None:
    ct, pet = "CTNormalization", "ZScoreNormalization"
    source = with_normalization(model(channels=("CT", "PET")), ct, pet)
    exchanged = model(channels=("PET", "CT"))
    assert fit(source, with_normalization(exchanged, pet, ct)).data == {}
    copied = fit(source, with_normalization(exchanged, ct, pet)).data
    assert copied == {"normalization_schemes": f"PET: {pet} -> {ct}; CT: {ct} -> {pet}"}


def test_plans_with_too_few_normalisations_are_named() -> None:
    (found,) = fit(model(), with_normalization(model(channels=("CT", "PET")), "CTNormalization")).data.values()
    assert "for 2 channels: cannot be preprocessed. `nnunet_ext plan --like`" in found


@pytest.mark.parametrize("family", ["plain", "resenc"])
@pytest.mark.parametrize(
    ("changes", "share"),
    [({}, (0.99, 1.0)), (ANISOTROPIC, (0.99, 1.0)), (FIVE_STAGES, (0.3, 0.7))],
    ids=["same", "anisotropic", "more stages"],
)
def test_share_falls_with_what_differs(changes: dict[str, Any], share: tuple[float, float], family: str) -> None:
    if family == "resenc" and "n_conv_per_stage" in changes:
        changes = {**changes, "n_blocks_per_stage": changes["n_conv_per_stage"]}
        del changes["n_conv_per_stage"]
    low, high = share
    assert low <= fit(model(family=family), model(family=family, **changes)).share <= high
