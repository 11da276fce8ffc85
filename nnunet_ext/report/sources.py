"""What nnU-Net's and this package's commands left in a folder: scores, files of the cases, trainings."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.largest_component import PIECES
from nnunet_ext.evaluation.metrics import DICE, LESIONS_RECALL, METRICS, NSD
from nnunet_ext.evaluation.metrics.label_in_case import OVERLAP
from nnunet_ext.evaluation.scores_table import SCORES, labels_with, nanmean, read_scores, seed_scores
from nnunet_ext.formats.annotated_labels import annotated_labels
from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.formats.evaluation import EvaluationJson, Origin
from nnunet_ext.formats.summary import path_of
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.messages import counted, some
from nnunet_ext.nnunet_names import FINAL, PLANS, TRAINER
from nnunet_ext.preprocessing.raw.instances import COMPONENTS
from nnunet_ext.report.cases import CaseFiles, Evaluation, Label, RawFiles, find_raw_files, read_labels, read_summary
from nnunet_ext.report.training import TrainingRecord, find_checkpoint, read_training

EVALUATION, REQUEST, SUMMARY = "evaluation.json", "request.json", "summary.json"
NO_TRAINING = "The training behind predictions is not known: no curves, no settings."


@dataclass(frozen=True)
class ScoredCases:
    """The scores of one trained model on some cases."""

    cases_of: str  # what the cases are, such as ``Dataset004_Hippocampus_val``
    scores: pd.DataFrame  # a row for each case, label and metric; see `case_scores`
    labels: tuple[Label, ...]  # with their values as far as they are known
    files: Mapping[str, CaseFiles]  # by case
    description: Mapping[str, Any] | None  # a dataset.json that tells how to read the files
    notes: Mapping[str, str] = field(default_factory=dict)  # how metrics were computed, by their group

    def dice(self) -> dict[str, float]:
        """The mean over the labels of each case; NaN where it has none."""
        values = seed_scores(self.scores, DICE, list(self.files), labels_with(self.scores, DICE)).values
        return dict(zip(self.files, map(nanmean, values.tolist())))


@dataclass(frozen=True)
class ResultsFolder:
    """What one folder holds."""

    path: Path
    name: str  # in the report, if the user gives none
    kind: str  # what it is, in words
    outcomes: tuple[ScoredCases, ...]  # one for each set of cases
    trainings: Mapping[str, TrainingRecord]  # by fold, as far as there are checkpoints
    remarks: tuple[str, ...] = ()  # what is missing or to be known
    commands: tuple[str, ...] = ()  # that made the scores from trained models
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software that scored


def read_predicted_folder(name: str, fold_folder: Path, predictions: Path, images: Path) -> ResultsFolder:
    """Predictions of a fold's model as a source; errors as of `read_summary` and `read_training`.

    Args:
        name: in the report.
        fold_folder: nnU-Net's ``fold_X`` with a checkpoint.
        predictions: what ``nnUNetv2_predict`` and ``nnUNetv2_evaluate_folder`` wrote.
        images: folder with ``<case>_0000.<ending>``.
    """
    description = read_dataset_json(predictions / "dataset.json")
    evaluation = read_summary(predictions / SUMMARY, description)
    files = {case: images / f"{case}_0000{description['file_ending']}" for case in evaluation.predictions}
    outcome = _scored_by_nnunet("", [evaluation], description, RawFiles(images=files))
    trainings = {fold_folder.name.replace("_", " "): read_training(fold_folder)}
    return ResultsFolder(predictions, name, "predictions", (outcome,), trainings)


def read_results_folder(path: Path) -> ResultsFolder:
    """Find out what a folder holds, and read it.

    It is a model folder TRAINER__PLANS__CONFIGURATION, a ``fold_X`` in it, an output folder of ``nnunet_ext evaluate``,
    or a folder of predictions with the summary.json of ``nnUNetv2_evaluate_folder``. A UserError says if it is nothing
    of these, or has no scores, and how to make them.
    """
    if path.name in (EVALUATION, SUMMARY) and path.is_file():
        path = path.parent
    if not path.is_dir():
        raise UserError(f"{path} does not exist. Name a folder with results; see nnunet_ext report --help.")
    path = path.resolve()
    if path.name == "validation" and path.parent.name.startswith("fold_"):
        path = path.parent
    if (path / EVALUATION).is_file():
        return _read_evaluate_folder(path)
    if path.name.startswith("fold_"):
        return _read_folds(path.parent, [path], name=f"{_short(path.parent)}, {path.name.replace('_', ' ')}", at=path)
    if (path / "plans.json").is_file() and any(path.glob("fold_*")):
        folds = sorted((one for one in path.glob("fold_*") if one.is_dir()), key=_fold_order)
        numbered = [one for one in folds if one.name != "fold_all"]
        return _read_folds(path, numbered or folds, name=_short(path), at=path)
    if (path / SUMMARY).is_file():
        return _read_predictions(path)
    raise UserError(f"{path} holds no results that the report knows.{_candidates(path)}")


def _candidates(path: Path) -> str:
    """What in a folder could have been meant."""
    found = [str(file.parent) for name in ("plans.json", EVALUATION) for file in sorted(path.glob(f"*/{name}"))]
    if found:
        return f" Name the folders in it: {some(found)}."
    return (
        " Name a model folder TRAINER__PLANS__CONFIGURATION of nnUNet_results, a fold_X in it, an output folder of "
        "nnunet_ext evaluate, or predictions with the summary.json of nnUNetv2_evaluate_folder."
    )


def _short(model: Path) -> str:
    """Trainer and configuration of a model folder, and its plans if they are not nnU-Net's."""
    trainer, _, rest = model.name.partition("__")
    plans, _, configuration = rest.partition("__")
    parts = [trainer.removeprefix(TRAINER) or "nnU-Net", configuration, "" if plans == PLANS else plans]
    return ", ".join(part for part in parts if part)


def _fold_order(fold: Path) -> tuple[bool, int, str]:
    number = fold.name.removeprefix("fold_")
    return not number.isdecimal(), int(number) if number.isdecimal() else 0, number


def _read_folds(model: Path, folds: Sequence[Path], *, name: str, at: Path) -> ResultsFolder:
    """The validation of some folds of a model as one; `at` is the folder that the user named."""
    scored = {fold: file for fold in folds if (file := fold / "validation" / SUMMARY).is_file()}
    if not scored:
        raise UserError(_no_summary(model, folds, at=at))
    description = read_dataset_json(model / "dataset.json")
    evaluations = {fold: read_summary(file, description) for fold, file in scored.items()}
    _refuse_shared_cases(evaluations, at=at)
    trainings = {fold: read_training(fold) for fold in folds if find_checkpoint(fold) is not None}
    remarks = [
        f"{fold.name} has no validation/summary.json, so its cases are not among those scored."
        for fold in trainings
        if fold not in scored
    ]
    for fold in folds:
        training = trainings.get(fold)
        if training is None and fold in scored:
            remarks.append(f"{fold.name} has no checkpoint, so its curves and settings are missing.")
        elif training is not None and not training.is_finished:
            remarks.append(f"{fold.name} has no checkpoint_final.pth: curves are those of {training.checkpoint.name}.")
    if any(fold.name == "fold_all" for fold in scored):
        remarks.append("fold_all was validated on cases that it has trained on: its scores are too good.")
    lists = annotated_labels(description, where=model / "dataset.json")
    evaluations = {fold: evaluation.of_annotated_labels(lists) for fold, evaluation in evaluations.items()}
    remarks += _left_out(evaluations.values())
    dataset = model.parent.name
    raw = find_raw_files(dataset, [model, next(iter(evaluations.values())).a_reference])
    outcome = _scored_by_nnunet(f"{dataset}_val", list(evaluations.values()), description, raw)
    kind = f"validation cases of {f'{len(scored)} folds' if len(scored) > 1 else 'a fold'}"
    by_name = {fold.name.replace("_", " "): training for fold, training in trainings.items()}
    return ResultsFolder(at, name, kind, (outcome,), by_name, tuple(remarks))


def _left_out(evaluations: Iterable[Evaluation]) -> list[str]:
    cases = {case for evaluation in evaluations for case in evaluation.left_out}
    told = f"{counted(len(cases), 'case')} with labels that nobody annotated: nnU-Net's scores of these are left out."
    return [told] if cases else []


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


def _refuse_shared_cases(evaluations: Mapping[Path, Evaluation], *, at: Path) -> None:
    seen: dict[str, str] = {}
    for fold, evaluation in evaluations.items():
        for case in evaluation.references:
            if case in seen:
                raise UserError(
                    f"{at}: case {case} is a validation case of {seen[case]} and of {fold.name}, so their scores are "
                    "no cross-validation. Name the folds one by one."
                )
            seen[case] = fold.name


def _scored_by_nnunet(
    cases_of: str, evaluations: Sequence[Evaluation], description: Mapping[str, Any], raw: RawFiles
) -> ScoredCases:
    """Evaluations of distinct cases as one; a reference that has gone is taken from the raw dataset."""
    files = {
        case: CaseFiles(
            evaluation.predictions[case],
            file if file.is_file() else raw.references.get(case, file),
            raw.images.get(case),
        )
        for evaluation in evaluations
        for case, file in evaluation.references.items()
    }
    labels = tuple(dict.fromkeys(label for evaluation in evaluations for label in evaluation.labels))
    scores = pd.concat([evaluation.scores for evaluation in evaluations])
    return ScoredCases(cases_of, scores, labels, files, description)


def _read_predictions(path: Path) -> ResultsFolder:
    """Predictions that ``nnUNetv2_evaluate_folder`` has scored; of the training nothing is known."""
    if not (path / "dataset.json").is_file():
        raise UserError(
            f"{path} has a summary.json but no dataset.json, which nnUNetv2_predict writes beside it. Copy "
            "that of the model."
        )
    description = read_dataset_json(path / "dataset.json")
    evaluation = read_summary(path / SUMMARY, description)
    reference = evaluation.a_reference
    of_references = reference.parent.parent / "dataset.json"
    if of_references.is_file():
        lists = annotated_labels(read_dataset_json(of_references), where=of_references)
        evaluation = evaluation.of_annotated_labels(lists)
    dataset = next((parent.name for parent in reference.parents if parent.name.startswith("Dataset")), "")
    # the folder of the references tells which cases of the dataset they are
    cases_of = "_".join(part for part in (dataset, reference.parent.name) if part)
    outcome = _scored_by_nnunet(cases_of, [evaluation], description, find_raw_files(dataset, [reference]))
    return ResultsFolder(path, path.name, "predictions", (outcome,), {}, (NO_TRAINING, *_left_out([evaluation])))


def _read_evaluate_folder(path: Path) -> ResultsFolder:
    """An output folder of ``nnunet_ext evaluate``."""
    content = read_typed(EvaluationJson, path / EVALUATION).model_dump(exclude_unset=True, exclude_none=True)
    scores = read_scores(path / SCORES)
    request = read_typed(Origin, path / REQUEST) if (path / REQUEST).is_file() else Origin()
    made_from = request.model or request.predictions or content.get("model") or content.get("predictions")
    if made_from is None:
        raise UserError(f"{path / EVALUATION} names neither a model nor predictions. Run nnunet_ext evaluate again.")
    origin = Path(path_of(made_from))
    folders = {fold: origin / f"fold_{fold}" for fold in content.get("folds", [])}
    trainings = {
        f"fold {fold}": read_training(folder) for fold, folder in folders.items() if find_checkpoint(folder) is not None
    }
    remarks = [
        f"The checkpoint of fold {fold} is not where it was, so its curves and settings are missing."
        for fold in folders
        if f"fold {fold}" not in trainings
    ]
    remarks += ["Cases that lack a label or a prediction were left out."] if content.get("partial") else []
    remarks += [remark for entry in content["datasets"] for remark in _remarks(entry)]
    by_model = f"{content.get('model')}, {'fold' if len(folders) == 1 else 'folds'} {', '.join(map(str, folders))}"
    description = read_dataset_json(origin / "dataset.json") if (origin / "dataset.json").is_file() else None
    near = [path, origin, *(Path(path_of(folder)) for folder in content.get("labels", []))]
    return ResultsFolder(
        path,
        path.name,
        f"{by_model if folders else f'predictions in {origin}'}, scored by nnunet_ext evaluate",
        tuple(
            _evaluated(entry, scores, description, near=near, predictions=None if folders else origin, out=path)
            for entry in content["datasets"]
        ),
        trainings,
        tuple(remarks if folders else [*remarks, NO_TRAINING]),
        (_evaluate_command(content, origin),),
        content.get("versions", {}),
    )


def _evaluated(
    entry: Mapping[str, Any],
    scores: pd.DataFrame,
    model: Mapping[str, Any] | None,
    *,
    near: Sequence[Path],
    predictions: Path | None,
    out: Path,
) -> ScoredCases:
    """The scores on one set of cases, of which evaluation.json has the `entry`.

    `model` is the dataset.json of the model or beside the predictions, if it is there; raw data are looked for `near`
    some paths, and predictions in the output folder `out` unless they have another.
    """
    name, references = f"{entry['dataset']}_{entry['cases']}", entry.get("references")
    of_set = scores[(scores["dataset"] == name) & (scores["references"] == (references or ""))]
    title = name if references is None else f"{name} ({references})"
    if of_set.empty:
        raise UserError(
            f"{out / SCORES} has no scores of {title}, which {EVALUATION} names. Run nnunet_ext evaluate again."
        )
    raw = find_raw_files(str(entry["dataset"]), near, references=references)
    description = raw.description or model
    values = {} if description is None else {label: key for key, label in read_labels(description).items()}
    ending, folder = "" if description is None else description["file_ending"], predictions or out / name
    files = {
        case: CaseFiles(folder / f"{case}{ending}", raw.references.get(case), raw.images.get(case))
        for case in map(str, of_set["case"].unique())
    }
    labels = tuple(Label(label, values.get(label, ())) for label in entry["labels"])
    return ScoredCases(title, of_set, labels, files, description, _notes(entry))


def _remarks(entry: Mapping[str, Any]) -> Iterator[str]:
    """Sentences if cases in evaluation.json were scored for some labels alone, or not by nnU-Net's decision."""
    if entry.get("threshold") is not None:
        where = f"{entry['dataset']}_{entry['cases']}"
        yield f"{where} is scored at probabilities from {entry['threshold']:g} on. Pictures show nnU-Net's decision."
    if entry.get("largest_component") is not None:
        where, body = f"{entry['dataset']}_{entry['cases']}", PIECES[entry["largest_component"]]
        yield f"{where} is scored by the largest connected component of {body} alone. Pictures show all components."
    without = {
        label: one["cases_not_annotated"] for label, one in entry["labels"].items() if "cases_not_annotated" in one
    }
    if without:
        total = entry["number_of_cases"]
        shown = ", ".join(f"{label} in {total - number}" for label, number in without.items())
        where = f"{entry['dataset']}_{entry['cases']}: of {total} cases {shown}"
        yield f"A case is scored only for labels that it was annotated for. {where}."


def _notes(entry: Mapping[str, Any]) -> dict[str, str]:
    """How the metrics of a data set in evaluation.json were computed where that can be chosen, by group."""
    notes = {}
    if "tolerances" in entry:
        notes[NSD.group] = f"Tolerance: {', '.join(f'{label} {mm:g} mm' for label, mm in entry['tolerances'].items())}."
    if "overlap" in entry:
        instances = entry.get("instances", COMPONENTS)
        notes[LESIONS_RECALL.group] = f"Instances: {instances}; found or right from an overlap of {entry['overlap']:g}."
    return notes


def _evaluate_command(content: Mapping[str, Any], origin: Path) -> str:
    """The command that made an evaluation.json, as far as it tells."""
    first, entries = content["datasets"][0], content["datasets"]
    groups = dict.fromkeys(metric.group for metric in METRICS if metric.of_cases and metric.name in first)
    groups |= {LESIONS_RECALL.group: None} if "overlap" in first else {}
    command = ["nnunet_ext", "evaluate"]
    if "model" in content:
        on = dict.fromkeys(f"{entry['dataset']}:{entry['cases']}" for entry in entries)
        command += [str(origin), *(part for one in on for part in ("--on", one))]
        command += ["-f", *map(str, content.get("folds", []))]
        references = dict.fromkeys(entry["references"] for entry in entries if "references" in entry)
    else:
        command += ["--predictions", str(origin)]
        references = dict.fromkeys(content.get("labels", []))
        command += ["--dataset-json", file] if (file := content.get("dataset_json")) else []
    command += ["--partial"] if content.get("partial") else []
    command += ["--metrics", *groups] if len(groups) > 1 else []
    if "tolerances" in first:
        command += ["--tolerance", *(f"{label}={value:.12g}" for label, value in first["tolerances"].items())]
    if "overlap" in first:
        command += [] if first["overlap"] == OVERLAP else ["--overlap", f"{first['overlap']:.12g}"]
        # beside a model the name of a folder of the dataset, beside predictions a path
        of_set = None if first.get("instances") == COMPONENTS else first.get("instances")
        command += ["--instances", folder] if (folder := content.get("instances", of_set)) else []
    command += [] if first.get("threshold") is None else ["--threshold", f"{first['threshold']:.12g}"]
    command += ["--largest-component", piece] if (piece := first.get("largest_component")) else []
    command += ["--labels", *references] if references else []
    command += [] if content.get("mirroring", True) else ["--disable-tta"]
    checkpoint = content.get("checkpoint", FINAL)
    command += [] if checkpoint == FINAL else ["--checkpoint", checkpoint]
    return f"{shlex.join(command)} -o OUT"
