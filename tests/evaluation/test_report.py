"""The report on a small made-up pair of runs: what it holds, and that nothing in it can run or load."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.report import (
    RunResult,
    best_slice,
    choose_cases,
    draw_chart,
    draw_charts,
    read_evaluation,
    read_training,
    write_report,
)

DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "liver": 1, "lesion": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
HOSTILE = "<script>alert(1)</script> $\\frac{ & \"'"


def write_volume(target: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 2.0))
    sitk.WriteImage(image, str(target))


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    total = reference.sum() + prediction.sum()
    return float(2 * (reference & prediction).sum() / total) if total else math.nan


def make_run(
    folder: Path, name: str, *, cases: tuple[str, ...], terms: dict[str, list[float]], shift: int, seed: int = 0
) -> RunResult:
    """A run as nnU-Net leaves it: predictions are the reference moved by 0, shift, 2 shift, … voxels."""
    rng = np.random.default_rng(seed)
    paths = {part: folder / part for part in ("images", "labels", "predictions", "fold_0")}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    per_case = []
    for number, case in enumerate(cases):
        labels = np.zeros((12, 16, 18), dtype=np.uint8)
        labels[3:9, 4:12, 4:12] = 1
        if number != 0:  # the first case has no lesion: its Dice is NaN
            labels[5:7, 6:9, 6:9] = 2
        prediction = np.roll(labels, shift * number, axis=2)
        write_volume(paths["images"] / f"{case}_0000.nii.gz", rng.normal(labels, 0.3).astype(np.float32))
        write_volume(paths["labels"] / f"{case}.nii.gz", labels)
        write_volume(paths["predictions"] / f"{case}.nii.gz", prediction)
        per_case.append(
            {
                "reference_file": str(paths["labels"] / f"{case}.nii.gz"),
                "prediction_file": str(paths["predictions"] / f"{case}.nii.gz"),
                "metrics": {str(value): {"Dice": dice(labels == value, prediction == value)} for value in (1, 2)},
            }
        )
    (paths["predictions"] / "dataset.json").write_text(json.dumps(DATASET_JSON))
    summary = paths["predictions"] / "summary.json"
    summary.write_text(json.dumps({"metric_per_case": per_case}))
    epochs = np.arange(10)
    checkpoint = {
        "network_weights": {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3)},
        "trainer_name": "nnUNetTrainerExample",
        "init_args": {
            "configuration": "3d_fullres_quick",
            "fold": 0,
            "plans": {
                "configurations": {
                    "3d_fullres": {
                        "patch_size": [12, 16, 16],
                        "batch_size": 2,
                        "spacing": [2.0, 1.5, 1.5],
                        "architecture": {},
                    },
                    "3d_fullres_quick": {
                        "inherits_from": "3d_fullres",
                        "batch_size": 4,
                    },
                }
            },
        },
        "nnunet_ext": {"settings": {"num_epochs": 10, "mixup": {"alpha": 0.4}}},
        "logging": {
            "train_losses": list(np.exp(-epochs / 4) - 0.5),
            "val_losses": list(np.exp(-epochs / 5) - 0.45),
            "mean_fg_dice": list(1 - np.exp(-epochs / 3)),
            "ema_fg_dice": list(1 - np.exp(-epochs / 5)),
            "dice_per_class_or_region": [[0.1, 0.2]] * 10,
            "lrs": list(0.01 * (1 - epochs / 10) ** 0.9),
            "epoch_start_timestamps": list(epochs * 3.0),
            "epoch_end_timestamps": list(epochs * 3.0 + 2.5),
            **terms,
        },
    }
    torch.save(checkpoint, paths["fold_0"] / "checkpoint_final.pth")
    return RunResult(name, paths["fold_0"], summary, paths["predictions"], paths["images"])


@pytest.fixture
def run(tmp_path: Path) -> RunResult:
    terms = {"loss/mixup": [math.nan, 1.0, 0.5], "other/never": [math.nan, math.nan]}
    return make_run(tmp_path / "a", "mixup", cases=("case_a", "case_b", "case_c"), terms=terms, shift=1)


class Elements(HTMLParser):
    """Every element's name and attributes, and all text outside style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def write(tmp_path: Path, *runs: RunResult, **texts: str) -> str:
    target = tmp_path / "report.html"
    write_report(
        target, runs, title=texts.get("title", "A title"), commands=[texts.get("command", "nnUNetv2_train 900")]
    )
    return target.read_text(encoding="utf-8")


def test_scores_are_those_of_the_summary(run: RunResult) -> None:
    evaluation = read_evaluation(run)
    by_name = {label.name: scores for label, scores in evaluation.labels.items()}
    # the liver, a block 8 voxels wide less the lesion's 3, moved by 0, 1 and 2 voxels
    assert by_name["liver"].count == 3
    assert by_name["lesion"].count == 2
    assert by_name["lesion"].mean == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert by_name["lesion"].minimum == pytest.approx(1 / 3)
    assert evaluation.cases.dice["case_a"] == 1.0
    assert evaluation.foreground_mean == pytest.approx((by_name["liver"].mean + by_name["lesion"].mean) / 2)


def test_page_shows_scores_and_cases_without_dice(tmp_path: Path, run: RunResult) -> None:
    page = write(tmp_path, run)
    assert ">0.500<" in page
    assert "2 of 3 cases" in page
    assert "nan" not in " ".join(Elements(page).text).lower()


def test_worst_median_and_best_case_are_chosen_by_mean_dice(run: RunResult) -> None:
    assert choose_cases([read_evaluation(run)]) == [("Worst", "case_c"), ("Median", "case_b"), ("Best", "case_a")]


def test_a_single_case_is_shown_once(tmp_path: Path) -> None:
    only = make_run(tmp_path / "one", "one", cases=("alone",), terms={}, shift=0)
    assert choose_cases([read_evaluation(only)]) == [("Worst", "alone")]


def test_overlays_are_embedded_for_each_case_and_run(tmp_path: Path, run: RunResult) -> None:
    other = make_run(tmp_path / "b", "stock", cases=("case_a", "case_b", "case_c"), terms={}, shift=2)
    pictures = [attributes["src"] for tag, attributes in Elements(write(tmp_path, run, other)).found if tag == "img"]
    assert len(pictures) == 6
    assert all(source and source.startswith("data:image/png;base64,") for source in pictures)


def test_runs_without_images_get_a_report_without_overlays(tmp_path: Path, run: RunResult) -> None:
    page = write(tmp_path, RunResult(run.name, run.fold_folder, run.summary, run.predictions))
    assert not [tag for tag, _ in Elements(page).found if tag == "img"]


def test_every_key_with_a_slash_becomes_a_chart_unless_it_never_has_a_value(run: RunResult) -> None:
    titles = [chart["title"] for chart in draw_charts([read_training(run.fold_folder)])]
    assert titles == ["Loss", "Pseudo Dice", "Learning rate", "loss/mixup"]


def test_settings_are_inherited_and_flattened(run: RunResult) -> None:
    settings = read_training(run.fold_folder).settings
    assert settings["Patch size"] == "12 × 16 × 16"
    assert settings["Batch size"] == "4"
    assert settings["mixup.alpha"] == "0.4"
    assert settings["Seconds per epoch (median)"] == "2.5"
    assert settings["Weights of the network"] == "15"


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    terms = {f"loss/{HOSTILE}": [1.0, 2.0]}
    case = "case <b onload=alert(2)> & $"
    hostile = make_run(tmp_path / "h", HOSTILE, cases=(case,), terms=terms, shift=1)
    page = write(tmp_path, hostile, title=HOSTILE, command=HOSTILE)
    elements = Elements(page)
    assert not [tag for tag, _ in elements.found if tag in ("script", "b")]
    assert not [key for _, attributes in elements.found for key in attributes if key.startswith("on")]
    assert f"Best: {case}" in elements.text or f"Worst: {case}" in elements.text
    assert any(HOSTILE in text for text in elements.text)


def test_page_loads_nothing_from_elsewhere(tmp_path: Path, run: RunResult) -> None:
    page = write(tmp_path, run)
    assert not re.search(r"https?:", page)
    for tag, attributes in Elements(page).found:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for key in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
    assert not re.findall(r"url\((?!['\"]?#)", page)
    assert "@import" not in page


def test_charts_take_their_colours_from_the_page() -> None:
    from nnunet_ext.evaluation.report import Line, run_colour

    svg = draw_chart("Loss", [Line("x", [1.0, math.nan, 2.0], run_colour(1))])
    assert "var(--run1)" in svg
    assert "var(--ink)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)


def test_best_slice_prefers_more_labels_to_more_voxels() -> None:
    labels = np.zeros((4, 5, 5), dtype=int)
    labels[1] = 1
    labels[2, 0, 0], labels[2, 1, 1] = 1, 2
    assert best_slice(labels, 0) == 2
    assert best_slice(np.zeros_like(labels), 0) == 2


def test_missing_checkpoint_is_named(tmp_path: Path, run: RunResult) -> None:
    (run.fold_folder / "checkpoint_final.pth").unlink()
    with pytest.raises(UserError, match="checkpoint_final.pth"):
        write(tmp_path, run)
    assert not (tmp_path / "report.html").exists()


def test_summary_without_cases_is_refused(tmp_path: Path, run: RunResult) -> None:
    run.summary.write_text('{"metric_per_case": []}')
    with pytest.raises(UserError, match="holds no evaluated case"):
        write(tmp_path, run)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write(tmp_path)


def test_what_a_fine_tuning_moved_is_a_table_and_one_chart(tmp_path: Path, run: RunResult) -> None:
    curves = {"moved/all": [0.1, 0.2], "moved/head": [1.0, 1.0]}
    tuned = make_run(tmp_path / "b", "DGST", cases=("case_a", "case_b"), terms=curves, shift=1)
    file = tuned.fold_folder / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["nnunet_ext"]["moved"] = {"shares": {"convolution": [3, 2000], "head": [7, 7]}, "flags": {}}
    torch.save(checkpoint, file)
    assert "What moved" not in write(tmp_path, run)
    page = write(tmp_path, run, tuned)
    assert "<h2>What moved</h2>" in page
    assert '<th scope="row">convolution</th><td>–</td><td>0.15 % of 2,000</td>' in page
    assert '<th scope="row">head</th><td>–</td><td>100 % of 7</td>' in page
    assert "Line chart over epochs: moved/all" in page
    assert "Line chart over epochs: moved/head" not in page
