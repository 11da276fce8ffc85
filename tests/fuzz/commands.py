"""The commands that are run on damaged input, and the valid input that is damaged."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_ext.cli import main
from nnunet_ext.jobs.sweep import Record, Resources, Sweep, SweepRequest
from support.nnunet_runs import build_trainer
from support.public_weights import multitalent, nnssl, wrapped
from support.raw_datasets import read_array
from support.scan_pairs import write_pair, write_table
from support.tiny_data import dataset_name

DATASET = dataset_name("labels")
TRAINER = "nnUNetTrainerMixUp"
MODEL = f"results/{DATASET}/{TRAINER}__nnUNetPlans__3d_tiny"
CASES = 3
RAW, PLANNED = f"raw/{DATASET}", f"preprocessed/{DATASET}"
PARTIAL = f"raw/{dataset_name('partial')}"
OPEN = "raw/Dataset918_Open"


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        line: arguments; paths are relative to the workspace.
        inputs: patterns of the files that it reads.
        outputs: paths below which it may write.
    """

    line: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ()


DATA = (f"{RAW}/dataset.json", f"{RAW}/*Tr/*.nii.gz")
WEIGHTS = (f"{MODEL}/*.json", f"{MODEL}/fold_0/*.pth", f"{MODEL}/fold_0/*.pth")
PLANS = (f"{PLANNED}/*.json",)
PUBLIC, STEMS, BARE = ((f"public/{name}.pth",) for name in ("nnssl", "stems", "bare"))
# What trains is not here, as it takes minutes: demo, jobs start, self-train. The last one is killed by
# tests/faults/test_killed_self_training.py, and tests/commands/test_self_train.py damages its own files.
COMMANDS = (
    Command(f"check -d 901 --trainer {TRAINER}", (*DATA, *PLANS)),
    Command(f"check -d 901 --trainer {TRAINER} -c 3d_tiny", (*DATA, *PLANS)),
    Command("check -d 901 --trainer nnUNetTrainerDBDMP", DATA),
    Command("check -d 901 --trainer nnUNetTrainerTDNet", DATA),
    Command("advise -d 901 --no-times --json", DATA),
    Command("simulate scribbles 901 -o Dataset911_S", DATA, ("raw",)),
    Command("simulate instances 901 -o Dataset912_I --keep 0.5", DATA, ("raw",)),
    Command("simulate labels 901 -o Dataset916_L --keep 1", DATA, ("raw",)),
    Command("simulate noise 901 -o Dataset920_N --rate 0.5 --size 2 --kinds shift swap", DATA, ("raw",)),
    Command("merge 901 906 -o Dataset917_M --prefix", (*DATA, f"{PARTIAL}/dataset.json", f"{PARTIAL}/*Tr/*"), ("raw",)),
    Command("merge 901 906 -o Dataset921_C --prefix --copy", (*DATA, f"{PARTIAL}/*Tr/*"), ("raw",)),
    Command("check -d 906 --trainer nnUNetTrainerPartialLabels", (f"{PARTIAL}/dataset.json", f"{PARTIAL}/labelsTr/*")),
    Command("unlabelled raw/" + DATASET + "/imagesTr -o Dataset913_U", DATA, ("raw",)),
    Command("split -d 901 --shots 1 --force", (*DATA, *PLANS), (PLANNED,)),
    Command("split -d 901 --cross-validation --folds 3 --force", (*DATA, *PLANS), (PLANNED,)),
    Command("configure -d 901 -c 3d_tiny --name fuzzed num_epochs=3", PLANS, (PLANNED,)),
    Command("plan -d 901 --preset quick", (*PLANS, f"{RAW}/dataset.json"), (PLANNED,)),
    Command("pair --table pairs/pairs.csv --labels a=1 b=2 -o Dataset914_P", ("pairs/*", "pairs/pairs.csv"), ("raw",)),
    Command(
        f"adapt-weights {MODEL}/fold_0/checkpoint_final.pth --to 901 3d_tiny --trainer {TRAINER} -o start.pth",
        (*WEIGHTS, *PLANS),
        ("start.pth",),
    ),
    Command(f"plan --like {MODEL} -d 901 --new-plans other", (*WEIGHTS, *PLANS), (PLANNED,)),
    Command("plan --like public/nnssl.pth -d 901 -c 3d_fullres", (*PUBLIC, *PLANS), (PLANNED,)),
    Command("adapt-weights public/nnssl.pth --dry-run", PUBLIC),
    Command("adapt-weights public/stems.pth --stem 035 --to 901 3d_tiny --partial -o start.pth", STEMS, ("start.pth",)),
    Command("adapt-weights public/bare.pth --to 901 3d_tiny --dry-run --partial --json", BARE),
    Command(f"export-stock {MODEL} -o exported", WEIGHTS, ("exported",)),
    Command("export-stock model.zip -o exported", ("model.zip",), ("exported",)),
    Command("report predictions -o report.html", ("predictions/*", "predictions/*.json"), ("report.html",)),
    Command(f"report {MODEL} predictions -o report.html", (*WEIGHTS, "predictions/*.json"), ("report.html",)),
    Command("report judged -o report.html", ("judged/*.json", "judged/*"), ("report.html",)),
    Command(
        f"evaluate --predictions predictions --labels {RAW}/labelsTr --metrics surface lesions -o scored "
        "--largest-component labels",
        ("predictions/*", f"{RAW}/labelsTr/*", f"{RAW}/dataset.json"),
        ("scored",),
    ),
    Command(
        f"review {MODEL} -d 901 -o reviewed --device cpu --disable-tta --top 2",
        (*WEIGHTS, *DATA, *PLANS),
        ("reviewed",),
    ),
    Command("register --start-up home/bashrc", ("home/bashrc",), ("home",)),
    Command("jobs status sweep", ("sweep/sweep.json", "sweep/trainings/*.json", f"{MODEL}/fold_0/*.json")),
    Command(
        f"evaluate {MODEL} --on 901:val -o evaluation --device cpu --disable-tta --bootstrap 0",
        (*WEIGHTS, *DATA, *PLANS),
        ("evaluation",),
    ),
    Command(
        f"complete {MODEL} -d 901 -o Dataset915_C --device cpu --disable-tta",
        (*WEIGHTS, *DATA, *PLANS),
        ("raw",),
    ),
    Command(
        f"pseudo-label {MODEL} -d 918 -o Dataset919_L --with 901 --device cpu --disable-tta --largest-component labels",
        (*WEIGHTS, f"{OPEN}/*.json", f"{OPEN}/*Tr/*.nii.gz", f"{RAW}/dataset.json"),
        ("raw",),
    ),
)


def make_workspace(root: Path, prepared: Path) -> None:
    """Write valid input for every command into an empty folder.

    Args:
        root: the folder.
        prepared: the suite's workspace; nnU-Net's variables point at it.
    """
    root.mkdir(parents=True, exist_ok=True)
    cases = [f"case_{number}" for number in range(CASES)]
    for part in ("imagesTr", "labelsTr"):
        (root / RAW / part).mkdir(parents=True)
        for file in (prepared / "nnUNet_raw" / DATASET / part).iterdir():
            if file.name.startswith(tuple(cases)):
                shutil.copy(file, root / RAW / part)
    shutil.copytree(prepared / "nnUNet_raw" / dataset_name("partial"), root / PARTIAL)
    source = prepared / "nnUNet_preprocessed" / DATASET
    (root / PLANNED / "gt_segmentations").mkdir(parents=True)
    for name in ("nnUNetPlans.json", "dataset_fingerprint.json"):
        shutil.copy(source / name, root / PLANNED)
    for case in cases:
        shutil.copy(source / "gt_segmentations" / f"{case}.nii.gz", root / PLANNED / "gt_segmentations")
    description = json.loads((source / "dataset.json").read_text())
    labels = [name for name, value in description["labels"].items() if value]
    own = {"made_by": "by hand", "annotated_labels": dict.fromkeys(cases, labels), "default": labels}
    for folder in (RAW, PLANNED):
        content = {**description, "numTraining": CASES, "nnunet_ext": own}
        (root / folder / "dataset.json").write_text(json.dumps(content))
    write_open_cases(root / OPEN, root / RAW)
    folds = [{"train": cases[1:], "val": cases[:1]}, {"train": cases[:-1], "val": cases[-1:]}]
    (root / PLANNED / "splits_final.json").write_text(json.dumps(folds))

    trainer = build_trainer(TRAINER)
    trainer.initialize()
    trainer.on_train_start()
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
    model = root / MODEL
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        shutil.copy(Path(trainer.output_folder_base) / name, model)
    shutil.copy(f"{trainer.output_folder}/checkpoint_final.pth", model / "fold_0")
    with zipfile.ZipFile(root / "model.zip", "w") as archive:
        for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
            archive.write(model / name, f"{DATASET}/{model.name}/{name}")

    public = root / "public"
    public.mkdir()
    for name, write in {"nnssl": nnssl, "bare": wrapped}.items():
        write(public)[0].rename(public / f"{name}.pth")
    multitalent(public, stems={"035": 2, "351_5": 1})[0].rename(public / "stems.pth")

    _write_predictions(root / "predictions", root / RAW, cases)
    shutil.copytree(root / "predictions", model / "fold_0" / "validation")
    _write_evaluation(root)
    _write_sweep(root)
    (root / "home").mkdir()
    (root / "home" / "bashrc").write_text("# some settings\nalias ll='ls -l'\n")
    write_table(root / "pairs" / "pairs.csv", [write_pair(root / "pairs", name) for name in ("ann", "bob")])


def _write_evaluation(root: Path) -> None:
    """What ``nnunet_ext evaluate`` says about the predictions."""
    arguments = ["--predictions", root / "predictions", "--labels", root / RAW / "labelsTr", "-o", root / "judged"]
    assert main(["evaluate", *map(str, arguments), "--metrics", "surface", "lesions", "--bootstrap", "10"]) == 0


def _write_sweep(root: Path) -> None:
    """A sweep of the one training, which has finished."""
    folders = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    request = SweepRequest(DATASET, "3d_tiny", "nnUNetPlans", "nnUNetPlans", [TRAINER], [0], None, folders)
    sweep = Sweep(root / "sweep", request, Resources("cpu", local=1))
    sweep.write()
    sweep.remember(sweep.trainings[0], Record("finished", attempts=1))
    (root / MODEL / "fold_0" / "debug.json").write_text('{"num_epochs": "3"}')


def _write_predictions(folder: Path, raw: Path, cases: list[str]) -> None:
    """Label maps with nnU-Net's summary of them."""
    folder.mkdir()
    scored = []
    for case in cases:
        reference = raw / "labelsTr" / f"{case}.nii.gz"
        shutil.copy(reference, folder)
        present = np.unique(read_array(reference))
        metrics = {str(label): {"Dice": 1.0 if label in present else float("nan")} for label in (1, 2)}
        files = {"reference_file": str(reference), "prediction_file": str(folder / reference.name)}
        scored.append({**files, "metrics": metrics})
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": scored}))
    shutil.copy(raw / "dataset.json", folder)


def write_open_cases(folder: Path, like: Path) -> None:
    """Write other cases of the same labels, of which nobody has annotated a voxel."""
    description = json.loads((like / "dataset.json").read_text())
    ignore = max(description["labels"].values()) + 1
    for part, number in (("imagesTr", "_0000"), ("labelsTr", "")):
        (folder / part).mkdir(parents=True)
        for case in range(CASES):
            image = sitk.ReadImage(str(like / part / f"case_{case}{number}.nii.gz"))
            changed = image * 1.25 if part == "imagesTr" else sitk.Cast(image * 0 + ignore, sitk.sitkUInt8)
            sitk.WriteImage(changed, str(folder / part / f"open_{case}{number}.nii.gz"))
    labels = {**description["labels"], "ignore": ignore}
    content = {**description, "labels": labels, "nnunet_ext": {"made_by": "by hand"}}
    (folder / "dataset.json").write_text(json.dumps(content))
