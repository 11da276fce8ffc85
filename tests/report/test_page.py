"""The page about made-up results: what it holds, and that nothing in it can run or load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_ext.report.page import write_report
from nnunet_ext.report.runs import as_runs, every_case_a_patient
from nnunet_ext.report.sources import read_predicted_folder, read_results_folder
from support.made_results import (
    DATASET,
    DATASET_JSON,
    Elements,
    evaluated_set,
    write_checkpoint,
    write_evaluation,
    write_model,
    write_predictions,
    write_raw,
)

HOSTILE = "<script>alert(1)</script> $\\frac{ & \"'"
CASES = tuple(f"case_{number}" for number in range(8))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path, CASES)


def shifts(*values: int) -> dict[str, int]:
    return dict(zip(CASES, values))


def page_of(tmp_path: Path, *named: tuple[str | None, Path], **options: object) -> str:
    runs = as_runs([(name, read_results_folder(path)) for name, path in named])
    options = {"title": "A title", "resamples": 100, "patients": every_case_a_patient(runs), **options}
    write_report(tmp_path / "report.html", runs, **options)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def two_models(tmp_path: Path, **options: object) -> tuple[tuple[None, Path], tuple[None, Path]]:
    first = write_model(tmp_path, {0: shifts(0, 1, 2, 3), 1: {"case_4": 1}}, trainer="nnUNetTrainer", **options)
    second = write_model(tmp_path, {0: shifts(0, 2, 3, 1), 1: {"case_4": 2}}, trainer="nnUNetTrainerOther", **options)
    return (None, first), (None, second)


def test_page_shows_scores_intervals_and_cases_without_dice(tmp_path: Path, raw: Path) -> None:
    model = write_model(tmp_path, {0: shifts(0, 1, 2)})
    words = Elements(page_of(tmp_path, (None, model))).words
    # lesions, three voxels wide, of two of the three cases, moved by one and by two
    assert "0.500 0.333 to 0.667 median 0.500, worst 0.333 2 of 3 cases" in words
    assert "3 cases" in words
    assert not re.search(r"\bnan\b", words, re.IGNORECASE)


def test_without_resamples_no_interval_is_spoken_of(tmp_path: Path, raw: Path) -> None:
    model = write_model(tmp_path, {0: shifts(0, 1, 2)})
    words = Elements(page_of(tmp_path, (None, model), resamples=0)).words
    assert "median 0.500" in words
    assert "0.333 to 0.667" not in words
    assert "bootstrap" not in words


def test_few_cases_are_compared_but_not_tested(tmp_path: Path, raw: Path) -> None:
    words = Elements(page_of(tmp_path, *two_models(tmp_path))).words
    assert "no test: 4 differ: too few to be significant at 5 %" in words
    assert "Wilcoxon signed-rank" in words
    assert 'zero_method="wilcox"' in words


def test_enough_cases_are_tested_and_corrected(tmp_path: Path) -> None:
    def evaluation(name: str, step: float) -> Path:
        values = {f"c{n}": {"liver": 0.5 + step * n, "lesion": 0.4 + step * n**2 / 10} for n in range(1, 9)}
        return write_evaluation(tmp_path / name, [evaluated_set(values)])

    page = page_of(tmp_path, ("A", evaluation("a", 0.01)), ("B", evaluation("b", 0.02)))
    cells = re.findall(r"<td>(0\.\d+|&lt; 0\.001)</td>", page)
    # eight differences of one sign: 2 / 2^8; three tests in each table of Dice and NSD
    assert cells.count("0.008") >= 3
    assert "0.023" in cells
    assert "p, Holm (3 tests)" in page
    assert "p, Holm (2 tests)" in page  # distances have no mean over the labels
    assert "(lower is better)" in page
    words = Elements(page).words
    for title in ("Aggregated Dice", "Normalized surface Dice", "ASSD in mm", "HD95 in mm", "Instance F1"):
        assert title in words


def test_runs_on_different_cases_are_compared_on_the_common_ones(tmp_path: Path, raw: Path) -> None:
    first = write_model(tmp_path, {0: shifts(0, 1, 2)}, trainer="nnUNetTrainerA")
    second = write_model(tmp_path, {0: {"case_1": 2, "case_2": 1, "case_3": 1, "case_4": 0}}, trainer="nnUNetTrainerB")
    third = write_model(tmp_path, {0: {"case_5": 0}}, trainer="nnUNetTrainerC")
    words = Elements(page_of(tmp_path, (None, first), (None, second))).words
    assert "the runs were scored on different cases, 2 of which all have" in words
    words = Elements(page_of(tmp_path, (None, first), (None, third))).words
    assert "no test: no case in common" in words


def test_means_over_different_labels_are_said_to_be(tmp_path: Path) -> None:
    def evaluation(name: str, **labels: float) -> Path:
        return write_evaluation(tmp_path / name, [evaluated_set({"x": labels, "y": labels})])

    both, liver = evaluation("a", liver=0.9, lesion=0.5), evaluation("b", liver=0.9)
    words = Elements(page_of(tmp_path, ("A", both), ("B", liver))).words
    assert words.count("Not every run has all labels, so their means over the labels are not to be compared") == 3
    assert words.count("Mean over liver B +0.000") == 3
    words = Elements(page_of(tmp_path, ("A", liver), ("C", evaluation("c", lesion=0.5)))).words
    assert "Mean C – no label that every training of both has" in words
    assert (
        "Not every run"
        not in Elements(page_of(tmp_path, ("A", both), ("C", evaluation("d", liver=0.8, lesion=0.5)))).words
    )


def test_seeds_are_said_to_be_seeds(tmp_path: Path, raw: Path) -> None:
    one = write_model(tmp_path, {0: shifts(0, 1, 2)}, trainer="nnUNetTrainerA")
    other = write_model(tmp_path, {0: shifts(0, 3, 3)}, trainer="nnUNetTrainerB")
    words = Elements(page_of(tmp_path, ("method", one), ("method", other))).words
    assert "method, 2 seeds" in words
    assert "mean over its seeds" in words
    # lesions: mean of (2/3 + 1/3)/2 and 0
    assert "lesion 0.250" in words


def test_intervals_are_over_seeds_and_p_is_not(tmp_path: Path) -> None:
    def evaluation(name: str, step: float) -> Path:
        return write_evaluation(
            tmp_path / name, [evaluated_set({f"c{n}": {"liver": 0.5 + step * n} for n in range(8)})]
        )

    one, other, again = evaluation("a", 0.01), evaluation("b", 0.02), evaluation("c", 0.03)
    words = Elements(page_of(tmp_path, ("A", one), ("B", other), ("B", again))).words
    assert "The intervals of runs of one training do not show what another seed or fold would give." in words
    assert "The intervals of several seeds are over cases and seeds. p is over cases only" in words
    assert "it does not show what other seeds would give" in words
    words = Elements(page_of(tmp_path, ("A", one), ("B", other))).words
    assert "The intervals and tests do not show what another seed or fold would give." in words
    assert "p is over cases only" not in words


def test_cases_that_are_left_out_of_a_difference_are_counted(tmp_path: Path) -> None:
    def evaluation(name: str, hard: float | None) -> Path:
        values = {"easy": {"liver": 0.8}, "hard": {"liver": hard}}
        return write_evaluation(tmp_path / name, [evaluated_set(values)])

    missing, finding, other = evaluation("a", None), evaluation("b", 0.5), evaluation("c", 0.6)
    words = Elements(page_of(tmp_path, ("A", other), ("B", missing), ("B", finding))).words
    assert "1 1 left out" in words
    assert "Cases that only some seeds of a run miss are counted as left out" in words
    assert "counted as left out" not in Elements(page_of(tmp_path, ("A", other), ("B", finding))).words


def test_overlays_are_embedded_for_worst_median_and_best_case_of_each_run(tmp_path: Path, raw: Path) -> None:
    elements = Elements(page_of(tmp_path, *two_models(tmp_path)))
    pictures = [attributes["src"] for tag, attributes in elements.found if tag == "img"]
    assert len(pictures) == 6
    assert all(source and source.startswith("data:image/png;base64,") for source in pictures)
    assert {"Worst", "Median", "Best"} <= {text.partition(":")[0] for text in elements.text}


def test_a_missing_image_is_said_in_a_sentence(tmp_path: Path, raw: Path) -> None:
    model = write_model(tmp_path, {0: shifts(0)})
    (raw / "imagesTr" / "case_0_0000.nii.gz").unlink()
    elements = Elements(page_of(tmp_path, (None, model)))
    assert "Pictures are missing: case_0" in elements.words
    assert not [tag for tag, _ in elements.found if tag == "img"]


def test_settings_that_differ_come_first_and_the_others_are_folded(tmp_path: Path, raw: Path) -> None:
    page = page_of(tmp_path, *two_models(tmp_path))
    shown, folded = page[page.index("<h2>Settings</h2>") :].split("<details>")
    assert "nnUNetTrainerOther" in shown
    assert "mixup.alpha" not in shown
    assert '<th scope="row">mixup.alpha</th><td>0.4</td><td>0.4</td>' in folded
    assert '<th scope="row">Fold</th><td>0, 1</td><td>0, 1</td>' in folded


def test_versions_are_those_recorded_and_those_now(tmp_path: Path, raw: Path) -> None:
    model = write_model(tmp_path, {0: shifts(0, 1)})
    evaluation = write_evaluation(tmp_path / "out", [evaluated_set({"case_0": {"liver": 0.5}})], model=model)
    page = page_of(tmp_path, (None, evaluation))
    assert '<th scope="row">nnunet_ext in training</th><td>0.0.7</td>' in page
    assert '<th scope="row">nnunetv2 in evaluation</th><td>2.8.0</td>' in page
    assert f'<th scope="row">numpy</th><td>{np.__version__}</td>' in page


def test_commands_are_derived_and_shared_ones_stand_once(tmp_path: Path, raw: Path) -> None:
    page = page_of(tmp_path, *two_models(tmp_path), report_command="nnunet_ext report A B -o report.html")
    lines = re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1].splitlines()
    assert lines == [
        "nnunet_ext configure -d 900 -c 3d_fullres --name 3d_short num_epochs=10 mixup.alpha=0.4",
        "nnUNetv2_train 900 3d_short 0",
        "nnUNetv2_train 900 3d_short 1",
        "nnUNetv2_train 900 3d_short 0 -tr nnUNetTrainerOther",
        "nnUNetv2_train 900 3d_short 1 -tr nnUNetTrainerOther",
        "nnunet_ext report A B -o report.html",
    ]


def test_cases_of_different_data_sets_are_matched_by_name_and_said_to_be(tmp_path: Path) -> None:
    values = {"x": {"liver": 0.5}}
    paths = [
        write_evaluation(tmp_path / name, [evaluated_set(values, dataset=name)])
        for name in ("Dataset001_One", "Dataset002_Two")
    ]
    assert "cases of the same name are taken for the same" in page_of(tmp_path, *((None, path) for path in paths))
    assert "taken for the same" not in page_of(tmp_path, (None, paths[0]))


def test_how_a_metric_was_computed_is_said_and_that_runs_differ_in_it(tmp_path: Path) -> None:
    values = {"x": {"liver": 0.5}}
    paths = [
        write_evaluation(tmp_path / f"at {tolerance}", [evaluated_set(values, tolerance=tolerance)])
        for tolerance in (1.0, 2.5)
    ]
    words = Elements(page_of(tmp_path, (None, paths[0]))).words
    assert "Tolerance: liver 1 mm." in words
    assert "overlap of 0.1" in words
    assert "Computed differently" not in words
    words = Elements(page_of(tmp_path, *((None, path) for path in paths))).words
    assert "Computed differently, so not to be compared: Tolerance: liver 1 mm. Tolerance: liver 2.5 mm." in words


def test_several_sets_of_cases_have_a_section_each(tmp_path: Path) -> None:
    def evaluation(name: str) -> Path:
        one = evaluated_set({"x": {"liver": 0.5}}, dataset="Dataset001_One")
        return write_evaluation(tmp_path / name, [one, evaluated_set({"x": {"liver": 0.7}}, dataset="Dataset002_Two")])

    page = page_of(tmp_path, ("A", evaluation("a")), ("B", evaluation("b")))
    headings = re.findall(r"<h2>(Scores.*?)</h2>", page)
    assert [re.sub("<wbr>", "", one) for one in headings] == [
        "Scores: Dataset001_One_val",
        "Scores: Dataset002_Two_val",
    ]


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    case = "case <b onload=alert(2)> & $"
    write_raw(tmp_path, [case, "other"])
    model = write_model(tmp_path, {0: {case: 1}}, terms={f"loss/{HOSTILE}": [1.0, 2.0]}, settings={"seed": HOSTILE})
    named = ((HOSTILE, model), ("<b>&ü", write_model(tmp_path, {0: {case: 0}}, trainer="nnUNetTrainerÜ")))
    page = page_of(tmp_path, *named, title=HOSTILE, subtitle=HOSTILE, report_command=HOSTILE)
    elements = Elements(page)
    assert not [tag for tag, _ in elements.found if tag in ("script", "b")]
    assert not [key for _, attributes in elements.found for key in attributes if key.startswith("on")]
    assert [text for text in elements.text if text.endswith(f": {case}")]
    assert any(HOSTILE in text for text in elements.text)
    assert any("<b>&ü" in text for text in elements.text)


MARKUP = "<img src=x onerror=x()>\"'><script>x() <svg onload=x()> &lt;b&gt; {{ 7 * 7 }} ${x} ]]>-->"
"""Text in the place of a name; without a slash, it can be that of a file too."""


def page_with(word: str, tmp_path: Path) -> str:
    """A page that has the word wherever a name can come from."""
    case, label, trainer = f"case {word}", f"label {word}", f"nnUNetTrainer{word}"
    write_raw(tmp_path, [case, "other"])
    model = write_model(
        tmp_path, {0: {case: 1}}, trainer=trainer, terms={f"loss/{word}": [1.0, 2.0]}, settings={word: word}
    )
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["nnunet_ext"] |= {"version": word, "moved": {"shares": {word: [1, 2], "all": [1, 2]}}}
    content["init_args"]["plans"] = {**content["init_args"]["plans"], "plans_name": word, "dataset_name": word}
    torch.save(content, file)
    dataset_json = {**DATASET_JSON, "labels": {"background": 0, label: 1, f"other {word}": 2}}
    (model / "dataset.json").write_text(json.dumps(dataset_json))
    scores = {case: {label: 0.5, f"other {word}": 0.7}, "other": {label: 0.9, f"other {word}": None}}
    evaluation = write_evaluation(tmp_path / f"evaluation {word}", [evaluated_set(scores, dataset=word)], model=model)
    made = json.loads((evaluation / "evaluation.json").read_text())
    made["versions"] |= {word: word}
    made["datasets"][0]["instances"] = word
    (evaluation / "evaluation.json").write_text(json.dumps(made))
    runs = as_runs([(word, read_results_folder(model)), (None, read_results_folder(evaluation))])
    patients = dict.fromkeys(every_case_a_patient(runs), f"patient {word}")
    options = {"title": word, "subtitle": word, "report_command": word, "patients": patients, "resamples": 20}
    write_report(tmp_path / f"{word}.html", runs, **options)
    return (tmp_path / f"{word}.html").read_text(encoding="utf-8")


def test_markup_in_any_name_makes_no_element_and_no_attribute(tmp_path: Path) -> None:
    pages = []
    for number, word in enumerate(("plain", MARKUP)):
        (tmp_path / str(number)).mkdir()
        pages.append(page_with(word, tmp_path / str(number)))
    plain, hostile = (Elements(page) for page in pages)
    assert [(tag, list(attributes)) for tag, attributes in hostile.found] == [
        (tag, list(attributes)) for tag, attributes in plain.found
    ]
    told = " ".join(hostile.text)
    places = [
        "case {}",
        "label {}",
        "evaluation {}",
        "loss/{}",
        "{} in evaluation",
        "Instances: {};",
        "nnUNetTrainer{}",
    ]
    assert [place for place in places if place.format("plain") not in " ".join(plain.text)] == []
    assert [place for place in places if place.replace("{}", MARKUP) not in told] == []
    labels = [attributes["aria-label"] for tag, attributes in hostile.found if "aria-label" in attributes]
    assert any(MARKUP in str(label) for label in labels)


def test_page_loads_nothing_from_elsewhere(tmp_path: Path, raw: Path) -> None:
    page = page_of(tmp_path, *two_models(tmp_path))
    assert not re.search(r"https?:", page)
    for tag, attributes in Elements(page).found:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for key in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
    assert not re.findall(r"url\((?!['\"]?#)", page)
    assert "@import" not in page


def test_wide_tables_scroll_in_their_own_box(tmp_path: Path, raw: Path) -> None:
    page = page_of(tmp_path, *two_models(tmp_path))
    assert page.count("<table") == len(re.findall(r'<div class="scroll">\s*<table', page))


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        write_report(tmp_path / "report.html", [], title="", patients={})


def test_predictions_of_a_demonstration_have_their_images_and_commands_as_run(tmp_path: Path, raw: Path) -> None:
    fold = write_checkpoint(tmp_path / "model" / "fold_0").parent
    predictions = tmp_path / "predictions"
    write_predictions(predictions, raw, shifts(1, 2))
    (predictions / "dataset.json").write_text(json.dumps(DATASET_JSON))
    source = read_predicted_folder("mine", fold, predictions, raw / "imagesTr")
    runs = as_runs([(source.name, source)])
    target = tmp_path / "report.html"
    write_report(target, runs, title="", patients=every_case_a_patient(runs), commands=["as I ran it"])
    page = target.read_text(encoding="utf-8")
    assert "<h2>Commands as run</h2>\n<pre>as I ran it" in page
    assert page.count("<img ") == 2


def test_what_a_fine_tuning_moved_is_a_table_and_one_chart(tmp_path: Path, raw: Path) -> None:
    stock = write_model(tmp_path, {0: shifts(0, 1)}, trainer="nnUNetTrainer")
    curves = {"moved/all": [0.1, 0.2], "moved/head": [1.0, 1.0]}
    tuned = write_model(tmp_path, {0: shifts(0, 1)}, trainer="nnUNetTrainerDGST", terms=curves)
    file = tuned / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["nnunet_ext"]["moved"] = {"shares": {"convolution": [3, 2000], "head": [7, 7]}, "flags": {}}
    torch.save(checkpoint, file)
    assert "What moved" not in page_of(tmp_path, (None, stock))
    page = page_of(tmp_path, (None, stock), (None, tuned))
    assert "<h2>What moved</h2>" in page
    assert '<th scope="row">convolution</th><td>–</td><td>0.15 % of 2,000</td>' in page
    assert '<th scope="row">head</th><td>–</td><td>100 % of 7</td>' in page
    assert "Line chart over epochs: moved/all" in page
    assert "Line chart over epochs: moved/head" not in page


def test_a_run_without_checkpoints_has_scores_and_a_remark(tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "out", [evaluated_set({"x": {"liver": 0.5, "lesion": None}})])
    words = Elements(page_of(tmp_path, (None, evaluation))).words
    assert "checkpoint of fold 0 is not where it was" in words
    assert "liver 0.500" in words
    assert "Settings" not in words
    assert DATASET in words
