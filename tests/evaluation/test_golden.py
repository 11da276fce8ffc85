"""The numbers of `evaluate` and `report` are those of the first version, which the files in ``golden`` hold.

The first version wrote evaluation.csv as a wide table, with a column for each metric. Six things are new on purpose:
the mean of NSD over the labels (``foreground_nsd``), that sums over cases are correctly rounded (`math.fsum`) in
aggregated Dice too, which may change its last digit, that intervals are over the patients that a figure is of, and not
over those of other sets of cases on the page, that a label which one run alone invents counts in their difference,
that with several seeds a distance counts in a difference only where every seed has one, and that Wilcoxon's p is exact
with ties too.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from nnunet_ext.evaluation.evaluation_files import remarks, results_table, write_results
from nnunet_ext.evaluation.scored_labels import match_labels
from nnunet_ext.evaluation.scores_table import read_scores
from nnunet_ext.evaluation.scoring import Options, score
from nnunet_ext.report.page import write_report
from nnunet_ext.report.runs import as_runs, every_case_a_patient
from nnunet_ext.report.sources import read_results_folder
from support.golden_cases import MODEL_LABELS, MODELS, PATIENTS, TOLERANCES, tables_of, write_golden_cases
from support.made_results import write_model, write_raw

GOLDEN = Path(__file__).parent / "golden"
RUNS = [*(f"{model}_full" for model in MODELS), "stock_0_dice"]
EVERYTHING = Options(("surface", "nsd", "lesions"), overlap=0.2, tolerances=TOLERANCES)
ORIGIN = {"model": "T__P__C", "trained_on": "Dataset001_Organs", "folds": [0], "checkpoint": "checkpoint_final.pth"}


@pytest.fixture(scope="module")
def text():
    return json.loads((GOLDEN / "text.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Output folders of `evaluate` by run, and what it prints about each."""
    root = tmp_path_factory.mktemp("golden")
    printed = {}
    for model, sets in write_golden_cases(root).items():
        for kind in ("full", "dice"):
            results = [
                score(
                    cases,
                    match_labels(MODEL_LABELS, cases.description, name="D"),
                    root / model / cases.name,
                    EVERYTHING if kind == "full" else Options(),
                    patients=PATIENTS,
                    resamples=200 if kind == "full" else 0,
                )
                for cases in (sets if kind == "full" else sets[:1])
            ]
            (root / f"{model}_{kind}").mkdir()
            write_results(root / f"{model}_{kind}", ORIGIN | {"mirroring": True}, results)
            lines = [line for result in results for line in remarks(result)]
            printed[f"{model}_{kind}"] = (results_table(results).splitlines(), lines)
    return root, printed


def close(found, expected, path=()):
    """Equal, but for the last digit of aggregated Dice."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for key in expected:
            close(found[key], expected[key], (*path, key))
    elif expected is not None and any("aggregated_dice" in str(part) for part in path):
        assert found == pytest.approx(expected, rel=4e-16), path
    elif path[:1] == ("datasets",) and isinstance(expected, list) and len(path) == 1:
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            close(one, other, (*path, number))
    else:
        assert found == expected, path


@pytest.mark.parametrize("run", RUNS)
def test_summary_has_the_numbers_of_the_first_version(evaluated, run):
    content = json.loads((evaluated[0] / run / "evaluation.json").read_text())
    del content["rule"], content["versions"]
    for entry in content["datasets"]:
        assert ("foreground_nsd" in entry) == ("nsd" in entry)
        for part in (entry, entry.get("intervals", {})):
            part.pop("foreground_nsd", None)
    close(content, json.loads((GOLDEN / f"{run}.json").read_text()))


@pytest.mark.parametrize("run", RUNS)
def test_table_has_the_numbers_of_the_first_version(evaluated, run):
    scores = read_scores(evaluated[0] / run / "scores.csv")
    scores["value"] = scores["numerator"] / scores["denominator"]  # 0 / 0 is NaN
    keys = ["dataset", "references", "case", "label"]
    wide = {part: scores.pivot(index=keys, columns="metric", values=part) for part in ("value", *scores.columns[-3:-1])}
    with (GOLDEN / f"{run}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(wide["value"])
    for row in rows:
        key = (f"{row['dataset']}_{row['cases']}", row.get("references", ""), row["case"], row["label"])
        found = {
            **wide["value"].loc[key],
            "volume_both": wide["numerator"].loc[key]["aggregated_dice"] / 2,
        }
        if "lesions_recall" in found:
            for part, names in (("numerator", ("found", "right")), ("denominator", ("reference", "predicted"))):
                for name, metric in zip(names, ("lesions_recall", "lesions_precision")):
                    found[f"lesions_{name}"] = wide[part].loc[key][metric]
        for name in row.keys() - {"dataset", "cases", "references", "case", "patient", "label", "lesions_f1"}:
            expected = float(row[name]) if row[name] else math.nan
            assert found[name] == expected or (math.isnan(expected) and math.isnan(found[name])), (key, name)


@pytest.mark.parametrize("run", RUNS)
def test_printed_table_and_remarks_have_the_lines_of_the_first_version(evaluated, text, run):
    table, lines = evaluated[1][run]
    expected = text["evaluate"][run]
    new = {line for line in table if line.startswith("mean: NSD")}
    assert {line for line in table if line not in new} == set(expected["table"])
    assert set(lines) == set(expected["remarks"])


def report(root: Path, named, patients=None, **options):
    runs = as_runs([(name, read_results_folder(path)) for name, path in named])
    target = root / "report.html"
    write_report(target, runs, title="T", patients=patients or every_case_a_patient(runs), resamples=200, **options)
    return tables_of(target.read_text(encoding="utf-8"))


def test_report_of_seeds_and_patients_has_the_numbers_of_the_first_version(evaluated, text):
    named = [("stock", "stock_0_full"), ("stock", "stock_1_full"), ("other", "other_0_full")]
    found = report(evaluated[0], [(name, evaluated[0] / run) for name, run in named], PATIENTS)
    assert found == text["report"]["evaluations"]


def test_report_of_runs_has_the_numbers_of_the_first_version(evaluated, text):
    named = [("stock", "stock_0_dice"), ("other", "other_0_dice"), ("again", "stock_1_dice")]
    found = report(evaluated[0], [(name, evaluated[0] / run) for name, run in named], baseline=1)
    assert found == text["report"]["single"]


def test_report_of_folds_has_the_numbers_of_the_first_version(text, tmp_path):
    write_raw(tmp_path, [f"case_{number}" for number in range(8)])
    shifts = {number: number % 3 for number in range(4)}, {number: number % 4 for number in range(4, 8)}
    folds = {fold: {f"case_{n}": shift for n, shift in cases.items()} for fold, cases in enumerate(shifts)}
    other = {0: {f"case_{number}": (number + 1) % 3 for number in range(8)}}
    models = [
        write_model(tmp_path, folds, trainer="nnUNetTrainerA"),
        write_model(tmp_path, other, trainer="nnUNetTrainerB"),
    ]
    assert report(tmp_path, [(None, model) for model in models]) == text["report"]["summaries"]
