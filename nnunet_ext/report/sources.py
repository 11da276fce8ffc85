"""What nnU-Net's and this package's commands left in a folder: scores, files of the cases, trainings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores import Scores, nanmean
from nnunet_ext.files import read_json
from nnunet_ext.report.case_files import CaseFiles, RawFiles, find_raw_dataset, read_raw_files
from nnunet_ext.report.metrics import DICE, ENTRIES, F1, NSD, PRECISION, RECALL, Row, case_row, case_value
from nnunet_ext.report.summary import Evaluation, Label, read_labels, read_summary
from nnunet_ext.report.training import TrainingRecord, find_checkpoint, read_training

EVALUATION, REQUEST, SUMMARY = "evaluation.json", "request.json", "summary.json"
SHOWN = 5  # names in a message

Rows = Mapping[str, Mapping[str, Row]]
"""What each case adds to a metric's figures, by label name and case."""


@dataclass(frozen=True)
class ScoredCases:
    """The scores of one trained model on some cases.

    Attributes:
        cases_of: what the cases are, such as ``Dataset004_Hippocampus_val``.
        rows: by metric name.
        labels: those that are scored, with their values as far as they are known.
        files: of each case.
        description: a dataset.json that tells how to read them; None where there is none.
        notes: by metric name, how it was computed where that can be chosen.
    """

    cases_of: str
    rows: Mapping[str, Rows]
    labels: tuple[Label, ...]
    files: Mapping[str, CaseFiles]
    description: Mapping[str, Any] | None
    notes: Mapping[str, str] = field(default_factory=dict)

    def dice(self) -> Scores:
        """Of each case, the mean over its labels."""
        rows = self.rows[DICE.name]
        return Scores(
            {
                case: nanmean(case_value(by_case[case]) for by_case in rows.values() if case in by_case)
                for case in self.files
            }
        )


@dataclass(frozen=True)
class Source:
    """What one folder holds.

    Attributes:
        path: the folder.
        name: how a report calls it if the user does not say.
        kind: what it is, in words.
        outcomes: one for each set of cases.
        trainings: by fold, as far as there are checkpoints.
        remarks: what is missing or to be known.
        commands: that made the scores from trained models.
        versions: of the software that scored.
    """

    path: Path
    name: str
    kind: str
    outcomes: tuple[ScoredCases, ...]
    trainings: Mapping[str, TrainingRecord]
    remarks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictedFolder:
    """Predictions of a fold's model that nnU-Net has scored.

    Attributes:
        name: how a report calls them.
        fold_folder: nnU-Net's ``fold_X`` folder with a checkpoint.
        summary: ``summary.json`` of ``nnUNetv2_evaluate_folder`` on the predictions.
        predictions: folder that ``nnUNetv2_predict`` wrote, with its ``dataset.json``.
        images: folder with the predicted cases' images, ``<case>_0000.<ending>``; None leaves pictures out.
    """

    name: str
    fold_folder: Path
    summary: Path
    predictions: Path
    images: Path | None = None


def read_evaluation(run: PredictedFolder) -> Evaluation:
    """The scores of predictions.

    Raises:
        UserError: if a file is missing or the summary holds no case.
    """
    return read_summary(run.summary, read_json(run.predictions / "dataset.json"))


def read_predicted_folder(run: PredictedFolder) -> Source:
    """Predictions of known origin as a source.

    Raises:
        UserError: as of `read_evaluation` and `read_training`.
    """
    description = read_json(run.predictions / "dataset.json")
    evaluation, ending = read_evaluation(run), description["file_ending"]
    files = {
        case: CaseFiles(
            file, evaluation.references[case], None if run.images is None else run.images / f"{case}_0000{ending}"
        )
        for case, file in evaluation.predictions.items()
    }
    outcome = ScoredCases("", _dice_rows([evaluation]), tuple(evaluation.labels), files, description)
    fold = run.fold_folder.name.removeprefix("fold_")
    return Source(
        run.predictions, run.name, "predictions", (outcome,), {f"fold {fold}": read_training(run.fold_folder)}
    )


def read_source(path: Path) -> Source:
    """Find out what a folder holds, and read it.

    Args:
        path: a model folder TRAINER__PLANS__CONFIGURATION, a ``fold_X`` in it, an output folder of ``nnunet_ext
            evaluate``, or a folder of predictions with the summary.json of ``nnUNetv2_evaluate_folder``.

    Raises:
        UserError: if it is nothing of these, or has no scores; the message says how to make them.
    """
    if path.name in (EVALUATION, SUMMARY) and path.is_file():
        path = path.parent
    if not path.is_dir():
        raise UserError(f"{path} does not exist. Expected is a folder with results; see nnunet_ext report --help.")
    path = path.resolve()
    if path.name == "validation" and path.parent.name.startswith("fold_"):
        path = path.parent
    if (path / EVALUATION).is_file():
        return _read_evaluate_folder(path)
    if path.name.startswith("fold_"):
        return _read_folds(path.parent, [path], name=f"{_short(path.parent)}, {path.name.replace('_', ' ')}", at=path)
    if (path / "plans.json").is_file() and any(path.glob("fold_*")):
        return _read_model(path)
    if (path / SUMMARY).is_file():
        return _read_predictions(path)
    raise UserError(f"{path} holds no results that the report knows.{_candidates(path)}")


def _candidates(path: Path) -> str:
    """What in a folder could have been meant."""
    found = [file.parent for file in (*sorted(path.glob("*/plans.json")), *sorted(path.glob(f"*/{EVALUATION}")))]
    if found:
        listed = ", ".join(str(folder) for folder in found[:SHOWN])
        return f" Name the folders in it: {listed}{', …' if len(found) > SHOWN else ''}."
    return (
        " Expected is a model folder TRAINER__PLANS__CONFIGURATION of nnUNet_results, a fold_X in it, an output folder "
        "of nnunet_ext evaluate, or predictions with the summary.json of nnUNetv2_evaluate_folder."
    )


def _short(model: Path) -> str:
    """Trainer and configuration of a model folder, and its plans if they are not nnU-Net's."""
    trainer, _, rest = model.name.partition("__")
    plans, _, configuration = rest.partition("__")
    parts = [trainer.removeprefix("nnUNetTrainer") or "nnU-Net", configuration, "" if plans == "nnUNetPlans" else plans]
    return ", ".join(part for part in parts if part)


def _read_model(model: Path) -> Source:
    """A cross-validation: all folds that nnU-Net has validated."""
    folds = sorted((one for one in model.glob("fold_*") if one.is_dir()), key=_fold_order)
    numbered = [one for one in folds if one.name != "fold_all"]
    return _read_folds(model, numbered or folds, name=_short(model), at=model)


def _fold_order(fold: Path) -> tuple[bool, int, str]:
    number = fold.name.removeprefix("fold_")
    return not number.isdecimal(), int(number) if number.isdecimal() else 0, number


def _read_folds(model: Path, folds: Sequence[Path], *, name: str, at: Path) -> Source:
    """The validation of some folds as one.

    Args:
        model: the model's folder.
        folds: in it.
        name: how a report calls it.
        at: what the user named.

    Raises:
        UserError: if no fold has a summary.json, or folds share cases.
    """
    scored = [fold for fold in folds if (fold / "validation" / SUMMARY).is_file()]
    if not scored:
        raise UserError(_no_summary(model, folds, at=at))
    description = read_json(model / "dataset.json")
    evaluations = [read_summary(fold / "validation" / SUMMARY, description) for fold in scored]
    remarks = [_without_scores(fold) for fold in folds if fold not in scored and find_checkpoint(fold) is not None]
    _refuse_shared_cases(scored, evaluations, at=at)
    trainings = {}
    for fold in folds:
        if find_checkpoint(fold) is None:
            if fold in scored:
                remarks.append(f"{fold.name} has no checkpoint, so its curves and settings are missing.")
            continue
        training = read_training(fold)
        trainings[fold.name.replace("_", " ")] = training
        if not training.is_finished:
            remarks.append(f"{fold.name} has no checkpoint_final.pth: curves are those of {training.checkpoint.name}.")
    if any(fold.name == "fold_all" for fold in scored):
        remarks.append("fold_all was validated on cases that it has trained on: its scores are too good.")
    near = [model, *_first_reference(evaluations)]
    outcome = _validated(model.parent.name, evaluations, description, near=near)
    kind = f"validation cases of {_plural(len(scored), 'fold')}" if len(scored) > 1 else "validation cases of a fold"
    return Source(at, name, kind, (outcome,), trainings, tuple(remarks))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _without_scores(fold: Path) -> str:
    return f"{fold.name} has no validation/summary.json, so its cases are not among those scored."


def _no_summary(model: Path, folds: Sequence[Path], *, at: Path) -> str:
    dataset, (trainer, _, rest) = model.parent.name, model.name.partition("__")
    plans, _, configuration = rest.partition("__")
    fold = folds[0].name.removeprefix("fold_")
    train = shlex.join(["nnUNetv2_train", dataset, configuration, fold, "-tr", trainer, "-p", plans, "--val"])
    evaluate = shlex.join(["nnunet_ext", "evaluate", str(model), "--on", dataset, "-f", fold, "-o", "OUT"])
    return (
        f"{at} has no validation/summary.json, so there are no scores. Validate a finished fold: {train}. Or score "
        f"the model and name OUT here: {evaluate}"
    )


def _refuse_shared_cases(folds: Sequence[Path], evaluations: Sequence[Evaluation], *, at: Path) -> None:
    seen: dict[str, str] = {}
    for fold, evaluation in zip(folds, evaluations):
        for case in evaluation.references:
            if case in seen:
                raise UserError(
                    f"{at}: case {case} is a validation case of {seen[case]} and of {fold.name}, so their scores are "
                    "no cross-validation. Name the folds one by one."
                )
            seen[case] = fold.name


def _first_reference(evaluations: Iterable[Evaluation]) -> list[Path]:
    return [next(iter(evaluation.references.values())) for evaluation in evaluations][:1]


def _dice_rows(evaluations: Sequence[Evaluation]) -> dict[str, Rows]:
    rows: dict[str, dict[str, Row]] = {}
    for evaluation in evaluations:
        for label, scores in evaluation.labels.items():
            by_case = rows.setdefault(label.name, {})
            by_case.update({case: case_row(value) for case, value in scores.dice.items()})
    return {DICE.name: rows}


def _validated(
    dataset: str, evaluations: Sequence[Evaluation], description: Mapping[str, Any], *, near: Sequence[Path]
) -> ScoredCases:
    """Validation cases of a dataset as an outcome; `near` are paths to look for its raw data from."""
    raw = _raw_files(dataset, near)
    files = {}
    for evaluation in evaluations:
        for case, reference in evaluation.references.items():
            known = reference if reference.is_file() or raw is None else raw.references.get(case, reference)
            files[case] = CaseFiles(evaluation.predictions[case], known, None if raw is None else raw.images.get(case))
    labels = tuple(dict.fromkeys(label for evaluation in evaluations for label in evaluation.labels))
    return ScoredCases(f"{dataset}_val", _dice_rows(evaluations), labels, files, description)


def _raw_files(dataset: str, near: Iterable[Path], *, references: str | None = None) -> RawFiles | None:
    folder = find_raw_dataset(dataset, near)
    return None if folder is None else read_raw_files(folder, references=references)


def _read_predictions(path: Path) -> Source:
    """Predictions that ``nnUNetv2_evaluate_folder`` has scored; of the training nothing is known."""
    if not (path / "dataset.json").is_file():
        raise UserError(f"{path} has a summary.json but no dataset.json, which nnUNetv2_predict writes beside it.")
    description = read_json(path / "dataset.json")
    evaluation = read_summary(path / SUMMARY, description)
    (reference,) = _first_reference([evaluation])
    dataset = next((parent.name for parent in reference.parents if parent.name.startswith("Dataset")), "")
    outcome = _validated(dataset, [evaluation], description, near=[reference])
    # which cases of the dataset they are, the folder of the references tells
    outcome = replace(outcome, cases_of="_".join(part for part in (dataset, reference.parent.name) if part))
    remark = "Of predictions alone the training is not known: no curves, no settings."
    return Source(path, path.name, "predictions", (outcome,), {}, (remark,))


def _read_evaluate_folder(path: Path) -> Source:
    """An output folder of ``nnunet_ext evaluate``."""
    content = read_json(path / EVALUATION)
    if not isinstance(content, dict) or not content.get("datasets"):
        raise UserError(f"{path / EVALUATION} holds no scored data set. Run nnunet_ext evaluate again.")
    request = read_json(path / REQUEST) if (path / REQUEST).is_file() else {}
    model = Path(request["model"]) if "model" in request else None
    trainings: dict[str, TrainingRecord] = {}
    remarks: list[str] = []
    for fold in content["folds"]:
        folder = None if model is None else model / f"fold_{fold}"
        if folder is None or find_checkpoint(folder) is None:
            remarks.append(f"The checkpoint of fold {fold} is not where it was: no curves, no settings of it.")
            continue
        trainings[f"fold {fold}"] = read_training(folder)
    near = [path, *([] if model is None else [model])]
    model_description = None
    if model is not None and (model / "dataset.json").is_file():
        model_description = read_json(model / "dataset.json")
    return Source(
        path,
        path.name,
        f"{content['model']}, {_folds(content['folds'])}, scored by nnunet_ext evaluate",
        tuple(_evaluated(path, entry, model_description, near=near) for entry in content["datasets"]),
        trainings,
        tuple(remarks),
        (_evaluate_command(content, model or Path(content["model"])),),
        {str(name): str(version) for name, version in content.get("versions", {}).items()},
    )


def _folds(folds: Sequence[int | str]) -> str:
    return f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, folds))}"


def _evaluated(
    path: Path, entry: Mapping[str, Any], model: Mapping[str, Any] | None, *, near: Sequence[Path]
) -> ScoredCases:
    """The scores on one set of cases.

    Args:
        path: the output folder.
        entry: the set's part of evaluation.json.
        model: the model's dataset.json, if it is there.
        near: paths to look for the raw data from.
    """
    dataset, references = str(entry["dataset"]), entry.get("references")
    folder = path / f"{dataset}_{entry['cases']}"
    raw = _raw_files(dataset, near, references=references)
    description = model if raw is None else raw.description
    values = {} if description is None else {name: key for key, name in read_labels(description).items()}
    rows: dict[str, dict[str, dict[str, Row]]] = {}
    for metric, (key, to_row) in ENTRIES.items():
        for case, by_label in entry.get(key, {}).items():
            for label, value in by_label.items():
                rows.setdefault(metric, {}).setdefault(label, {})[case] = to_row(value)
    files = {}
    for case in entry["dice"]:
        file = folder / f"{case}{'' if description is None else description['file_ending']}"
        files[case] = CaseFiles(
            file, None if raw is None else raw.references.get(case), None if raw is None else raw.images.get(case)
        )
    labels = tuple(Label(name, values.get(name, ())) for name in entry["labels"])
    cases_of = folder.name if references is None else f"{folder.name} ({references})"
    return ScoredCases(cases_of, rows, labels, files, description, _notes(entry))


def _notes(entry: Mapping[str, Any]) -> dict[str, str]:
    """How the metrics of a data set in evaluation.json were computed that have a choice."""
    notes = {}
    if "tolerances" in entry:
        notes[NSD.name] = f"Tolerance: {', '.join(f'{label} {mm:g} mm' for label, mm in entry['tolerances'].items())}."
    if "overlap" in entry:
        instances = entry.get("instances", "components")
        note = f"Instances: {instances}; found or right from an overlap of {entry['overlap']:g}."
        notes |= dict.fromkeys((RECALL.name, PRECISION.name, F1.name), note)
    return notes


def _evaluate_command(content: Mapping[str, Any], model: Path) -> str:
    """The command that made an evaluation.json, as far as it tells."""
    first = content["datasets"][0]
    metrics = [name for name, key in (("surface", "assd"), ("nsd", "nsd"), ("lesions", "lesions")) if key in first]
    on = dict.fromkeys(f"{entry['dataset']}:{entry['cases']}" for entry in content["datasets"])
    references = dict.fromkeys(entry["references"] for entry in content["datasets"] if "references" in entry)
    command = ["nnunet_ext", "evaluate", str(model), *(part for one in on for part in ("--on", one))]
    command += ["-f", *map(str, content["folds"])]
    command += ["--metrics", "dice", *metrics] if metrics else []
    if "nsd" in metrics:
        command += ["--tolerance", *(f"{label}={value:g}" for label, value in first.get("tolerances", {}).items())]
    command += ["--labels", *references] if references else []
    command += [] if content["mirroring"] else ["--disable-tta"]
    command += [] if content["checkpoint"] == "checkpoint_final.pth" else ["--checkpoint", content["checkpoint"]]
    return f"{shlex.join(command)} -o OUT"
