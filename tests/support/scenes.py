"""What each page of the documentation takes for granted: datasets, models and files that its commands name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import SimpleITK as sitk

from nnunet_ext.files import read_json
from support.command_blocks import Folder
from support.public_weights import multitalent, nnssl, totalsegmentator
from support.scan_pairs import box, scan, textured, write_pair, write_table
from support.sweeps import StandIn
from support.wandb_stand_in import WandbStandIn

SCAN_SHAPE = (12, 20, 28)

Scene = Callable[[Folder], None]
SCENES: dict[str, Scene] = {}


def scene(*pages: str) -> Callable[[Scene], Scene]:
    def register(function: Scene) -> Scene:
        SCENES.update(dict.fromkeys(pages, function))
        return function

    return register


def example(*commands: str) -> Callable[[Scene], Scene]:
    """The scene of a command's examples, which are all on one page."""
    return scene(*(f"docs/reference/commands.md#nnunet_ext {command}" for command in commands))


@scene("README.md", "docs/index.md", "docs/get-started.md", "docs/how-to/devices.md", "docs/techniques/mixup.md")
def one_dataset(folder: Folder) -> None:
    dataset = folder.dataset("Dataset004_Hippocampus", planned=True)
    folder.inputs(dataset)
    model = folder.results / dataset.name / "nnUNetTrainerMixUp__nnUNetPlans__3d_fullres_quick"
    folder.link("MODEL", model)
    new_images(folder, dataset, "IMAGES")


def new_images(folder: Folder, dataset: Path, name: str) -> None:
    """A folder of images without labels that are in no dataset."""
    place = folder.root / name
    place.mkdir()
    for image in sorted((dataset / "imagesTr").iterdir())[:2]:
        sitk.WriteImage(sitk.ReadImage(str(image)) * 1.5, str(place / f"new_{image.name}"))


@scene("docs/add-a-technique.md")
def folder_of_trainers(folder: Folder) -> None:
    """Its own test, tests/docs/test_add_a_technique.py, fills the folder; here it is missing and left out."""


@scene("docs/how-to/adapt-weights.md")
def weights_and_target(folder: Folder) -> None:
    model = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    folder.link("checkpoint_final.pth", model / "fold_0" / "checkpoint_final.pth")
    folder.dataset("Dataset005_Clinic")
    folder.run("nnUNetv2_plan_and_preprocess -d 5 --no_pp")
    folder.run("nnunet_ext plan --like checkpoint_final.pth -d 5 --new-plans nnUNetPlans_from_4")
    folder.run("nnUNetv2_preprocess -d 5 -plans_name nnUNetPlans_from_4 -c 3d_fullres_like")


@scene("docs/recipes/totalsegmentator.md", "docs/recipes/openmind.md", "docs/recipes/multitalent.md")
def public_weights_and_few_cases(folder: Folder) -> None:
    folder.inputs(folder.dataset("Dataset005_Clinic", cases=10))
    totalsegmentator(folder.root)
    for name, write in {
        "ResEncL-OpenMind-MAE.pth": nnssl,
        "MultiTalent.pth": multitalent,
        "MultiTalent_multistem.pth": lambda place: multitalent(place, stems={"035": 2, "351_5": 1}),
    }.items():
        place = folder.root / f"of {name}"
        place.mkdir()
        folder.link(name, write(place)[0])


def a_model_and_new_cases(folder: Folder, plans: str, configuration: str) -> None:
    folder.link("MODEL", folder.model(folder.dataset("Dataset004_Hippocampus", planned=True)))
    target = folder.dataset("Dataset005_Clinic", cases=8)
    folder.inputs(target)
    folder.link("TUNED", folder.results / target.name / f"nnUNetTrainerFineTune__{plans}__{configuration}")


@scene("docs/recipes/another-scanner.md")
def a_colleagues_model(folder: Folder) -> None:
    a_model_and_new_cases(folder, "nnUNetPlans_colleague", "3d_fullres_here")


@scene("docs/recipes/without-forgetting.md")
def a_model_of_last_year(folder: Folder) -> None:
    a_model_and_new_cases(folder, "nnUNetPlans_before", "3d_fullres_held")


@scene("docs/how-to/few-shot.md", "docs/techniques/fine-tuning.md")
def source_and_few_cases(folder: Folder) -> None:
    source = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    target = folder.dataset("Dataset005_Clinic", cases=8)
    folder.inputs(target)
    folder.link("SOURCE_MODEL", source)
    folder.link("SOURCE.pth", source / "fold_0" / "checkpoint_final.pth")
    tuned = folder.results / target.name / "nnUNetTrainerFineTune__nnUNetPlans_from_4__3d_fullres_tuned"
    folder.link("TUNED_MODEL", tuned)
    scratch = folder.results / target.name / "nnUNetTrainerConfigurable__nnUNetPlans_from_4__3d_fullres_tuned"
    folder.link("SCRATCH_MODEL", scratch)


@scene("docs/how-to/deploy.md")
def models_to_deploy(folder: Folder) -> None:
    # the page has one folder IN for both models
    scribbles = folder.dataset("Dataset027_Heart", "prior_ignore", planned=True)
    model = folder.model(scribbles, "nnUNetTrainerTDNet")
    folder.every_fold(model)
    folder.link("MODEL", model)
    folder.inputs(scribbles)
    folder.run(
        "nnUNetv2_export_model_to_zip -d 27 -o model_from_elsewhere.zip -c 3d_fullres -f 0 -tr nnUNetTrainerTDNet"
    )
    pairs = folder.dataset("Dataset811_Heart", "prior", planned=True)
    dual = folder.model(pairs, "nnUNetTrainerDualEncoder")
    folder.link("DUAL_ENCODER_MODEL", dual)
    two_stages(folder, pairs.name)


def two_stages(folder: Folder, dataset: str) -> None:
    """A cascade; its first stage is trained on all cases, so that it has predicted each of them for the second."""
    for stage, configuration, fold in (("LOWRES", "3d_lowres_tiny", "all"), ("CASCADE", "3d_cascade_tiny", "0")):
        folder.run(f"nnUNetv2_train {dataset} {configuration} {fold}")
        folder.link(f"{stage}_MODEL", folder.results / dataset / f"nnUNetTrainer__nnUNetPlans__{configuration}")
    first = folder.root / "LOWRES_MODEL"
    shutil.copytree(first / "fold_all", first / "fold_0")


@scene("docs/how-to/wandb.md")
def a_training_that_logs(folder: Folder) -> None:
    folder.dataset("Dataset004_Hippocampus", planned=True)
    for variable in ("enabled", "project", "mode"):
        folder.monkeypatch.delenv(f"nnUNet_wandb_{variable}", raising=False)  # and so they end with the test
    folder.monkeypatch.setattr("nnunetv2.training.logging.nnunet_logger.wandb", WandbStandIn())


@scene("docs/how-to/report.md")
def models_to_compare(folder: Folder) -> None:
    dataset = folder.dataset("Dataset811_Heart", planned=True)
    pairs_by_patient(folder, dataset.name)
    for name, trainer in (("A", "nnUNetTrainer"), ("B", "nnUNetTrainerMixUp")):
        model = folder.model(dataset, trainer)
        folder.link(f"MODEL_{name}", model)
    for letter, name in (("S", "A"), ("M", "B")):
        folder.run(f"nnunet_ext evaluate MODEL_{name} --on 811:all -o EVALUATION_{letter}0")
        shutil.copytree(folder.root / f"EVALUATION_{letter}0", folder.root / f"EVALUATION_{letter}1")


@scene("docs/how-to/clusters.md")
@example("jobs")
def sweeps(folder: Folder) -> None:
    folder.dataset("Dataset004_Hippocampus", planned=True)
    programs = folder.root / "programs"
    programs.mkdir()
    stand_in = StandIn(programs)
    folder.monkeypatch.setattr("nnunet_ext.programs.find_executable", lambda name: stand_in.folder / name)


def pairs_by_patient(folder: Folder, dataset: str) -> None:
    """A pairs.json of a dataset in which every case has a patient of its own."""
    cases = {f"case_{number}": f"patient {number}" for number in range(5)}
    (folder.raw / dataset / "pairs.json").write_text(json.dumps(cases))


def patients(folder: Folder, table: str, names: Sequence[str], *, labelled: bool) -> None:
    """A table of scans with priors, of three labels each."""
    shape, rows = SCAN_SHAPE, []
    for number, name in enumerate(names):
        labels = {1: (4 + number % 3, 9), 2: (12, 18), 3: (20, 27)}
        images = {
            "current_image": scan(textured(number, shape)),
            "prior_image": scan(textured(number, shape)),
            "prior_label": scan(box(labels, shape)),
            "current_label": scan(box(labels, shape)) if labelled else None,
        }
        rows.append(write_pair(folder.root, name, **images))
    write_table(folder.root / table, rows)


@scene("docs/techniques/dual-encoder.md")
def scans_with_priors(folder: Folder) -> None:
    patients(folder, "pairs.csv", tuple("abcdef"), labelled=True)
    patients(folder, "new.csv", ("new",), labelled=False)


@scene("docs/techniques/pretraining.md")
def images_without_labels(folder: Folder) -> None:
    dataset = folder.dataset("Dataset005_Lesions")
    shutil.copytree(dataset / "imagesTr", folder.root / "IMAGES")


@scene("docs/techniques/partial-instances.md")
def partially_annotated(folder: Folder) -> None:
    dataset = folder.dataset("Dataset005_Lesions")
    shutil.copytree(dataset / "labelsTr", dataset / "labelsTr_dense")
    folder.inputs(dataset)
    folder.run("nnUNetv2_plan_and_preprocess -d 5 -c 3d_fullres")
    pretrained = folder.model(dataset, "nnUNetTrainerModelsGenesis", fold="all")
    folder.link("PRETRAINED", pretrained)
    model = folder.model(dataset, "nnUNetTrainerDBDMP")
    folder.every_fold(model)
    folder.dataset("Dataset009_Dense")


@scene("docs/techniques/scribbles.md")
def scribbled(folder: Folder) -> None:
    dataset = folder.dataset("Dataset027_Heart", "ignore")
    shutil.copytree(folder.workspace.raw / "Dataset901_Labels" / "labelsTr", dataset / "labelsTr_dense")
    folder.inputs(dataset)
    folder.dataset("Dataset005_Dense")


def two_to_merge(folder: Folder) -> None:
    """Datasets 3 and 9 with other labels, and a table of names."""
    folder.dataset("Dataset003_Liver", called={"shell": "liver", "core": "spleen"})
    folder.dataset("Dataset009_Kidneys", "ignore", called={"shell": "kidney", "core": "Milz"})
    (folder.root / "names.json").write_text(json.dumps({"spleen": ["Milz"]}))


@scene("docs/techniques/partial-labels.md")
def missing_labels(folder: Folder) -> None:
    two_to_merge(folder)
    folder.inputs(folder.raw / "Dataset003_Liver")
    folder.dataset("Dataset005_Dense", called={"shell": "liver", "core": "spleen"})


# ---------------------------------------------------------------------- examples of --help, on one page by command


@example("path", "list", "doctor")
def environment(folder: Folder) -> None:
    folder.run('export nnUNet_extTrainer="$(nnunet_ext path)"')


@example("configure")
def one_planned_dataset(folder: Folder) -> None:
    folder.dataset("Dataset004_Hippocampus", planned=True)


@example("plan")
def datasets_to_plan(folder: Folder) -> None:
    model = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    folder.link("checkpoint_final.pth", model / "fold_0" / "checkpoint_final.pth")
    folder.dataset("Dataset005_Clinic", planned=True)


@example("split")
def cases_to_split(folder: Folder) -> None:
    folder.dataset("Dataset004_Hippocampus", cases=26)
    folder.run("nnunet_ext split -d 4 --shots 5")
    scans = folder.dataset("Dataset027_Heart", "ignore")
    for part in ("imagesTr", "labelsTr"):
        for file in list((scans / part).iterdir()):
            file.rename(file.with_name(file.name.replace("case_", "patient")))


@example("simulate")
def dense_labels(folder: Folder) -> None:
    folder.dataset("Dataset702_Lesions")
    folder.dataset("Dataset004_Hippocampus", called={"shell": "Anterior", "core": "Posterior"})


@example("unlabelled")
def unlabelled_images(folder: Folder) -> None:
    folder.dataset("Dataset005_Lesions", planned=True)
    model = folder.results / "Dataset012_Unlabelled" / "nnUNetTrainerModelsGenesis__nnUNetPlansFrom5__3d_fullres"
    folder.link("CHECKPOINT", model / "fold_all" / "checkpoint_final.pth")


@example("pair")
def tables_and_folders_of_pairs(folder: Folder) -> None:
    scans_with_priors(folder)
    tumour = scan(box({1: (4, 9)}, SCAN_SHAPE))
    for part, column in (("now", "current_image"), ("before", "prior_image")):
        for place in (folder.root / part, folder.root / f"{part}_labels"):
            place.mkdir()
        for patient in "abcdef":
            shutil.copy(folder.root / f"{column} {patient}.nii.gz", folder.root / part / f"{patient}.nii.gz")
            sitk.WriteImage(tumour, str(folder.root / f"{part}_labels" / f"{patient}.nii.gz"))
    # the page trains no model between the pairs to train on and the new one
    folder.run("nnunet_ext pair --table pairs.csv --labels RV=1 MYO=2 LV=3 -o Dataset811_Heart --registration affine")
    folder.run("nnUNetv2_plan_and_preprocess -d 811 -c 3d_fullres")
    model = folder.model(folder.raw / "Dataset811_Heart", "nnUNetTrainerDualEncoder")
    folder.every_fold(model)
    folder.link("MODEL_FOLDER", model)
    shutil.rmtree(folder.raw / "Dataset811_Heart")


@example("merge")
def datasets_to_merge(folder: Folder) -> None:
    two_to_merge(folder)


@scene("docs/choose.md")
@example("advise")
def dataset_to_advise_on(folder: Folder) -> None:
    new_images(folder, folder.dataset("Dataset005_Lesions"), "IMAGES")


@example("check")
def datasets_to_check(folder: Folder) -> None:
    folder.dataset("Dataset712_Partial")
    folder.dataset("Dataset027_Heart", "ignore", planned=True)


@example("evaluate")
def models_and_data_to_evaluate(folder: Folder) -> None:
    source = folder.dataset("Dataset004_Hippocampus", planned=True, called={"core": "tumour"})
    folder.run("nnUNetv2_train 4 2d 0")
    model = folder.model(source)
    folder.every_fold(model)
    folder.link("MODEL", model)
    folder.link("TUNED_MODEL", model)
    folder.dataset("Dataset027_Heart", "ignore", planned=True, called={"core": "tumour"})
    for name in ("Dataset702_Lesions", "Dataset811_Heart"):
        dataset = folder.dataset(name, planned=True, called={"core": "tumour"})
        shutil.copytree(dataset / "labelsTr", dataset / "labelsTr_dense")
    pairs_by_patient(folder, "Dataset811_Heart")
    predictions(folder, source, "ENSEMBLE")
    predictions(folder, source, "CASCADE")
    folder.inputs(source)
    shutil.copy(source / "dataset.json", folder.root)


@scene("docs/how-to/evaluate.md")
def model_and_predictions(folder: Folder) -> None:
    dataset = folder.dataset("Dataset004_Hippocampus", planned=True)
    folder.link("MODEL", folder.model(dataset))
    predictions(folder, dataset, "PREDICTIONS")
    folder.inputs(dataset)


def predictions(folder: Folder, dataset: Path, name: str) -> None:
    """A folder of predictions of the test cases, as nnU-Net writes it."""
    shutil.copytree(dataset / "labelsTs", folder.root / name)
    shutil.copy(dataset / "dataset.json", folder.root / name)


@example("report")
def results_to_report(folder: Folder) -> None:
    dataset = folder.dataset("Dataset004_Hippocampus", planned=True)
    folder.link("MODEL", folder.model(dataset))
    folder.model(dataset, "nnUNetTrainerMixUp")
    folder.run("nnunet_ext evaluate MODEL --on 4:all -o EVALUATION_1")
    for name in "234AB":
        shutil.copytree(folder.root / "EVALUATION_1", folder.root / f"EVALUATION_{name}")
    pairs_by_patient(folder, dataset.name)
    shutil.copy(dataset / "pairs.json", folder.root)


@scene("docs/techniques/noisy-labels.md")
def labels_to_make_wrong(folder: Folder) -> None:
    dataset = folder.dataset("Dataset004_Hippocampus", planned=True)
    folder.inputs(dataset)
    folder.link("MODEL_FOLDER", folder.results / dataset.name / "nnUNetTrainerADELE__nnUNetPlans__3d_fullres")


@example("review")
def model_that_judges(folder: Folder) -> None:
    model = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    folder.every_fold(model)
    folder.link("MODEL_FOLDER", model)


@example("complete")
def model_that_completes(folder: Folder) -> None:
    model = folder.model(folder.dataset("Dataset005_Lesions", planned=True), "nnUNetTrainerDBDMP")
    folder.every_fold(model)
    folder.link("MODEL_FOLDER", model)


@example("pseudo-label")
def models_that_label(folder: Folder) -> None:
    dataset = folder.dataset("Dataset005_Heart", "ignore", planned=True)
    model = folder.model(dataset)
    folder.every_fold(model)
    for name in ("MODEL_FOLDER", "MODEL_A", "MODEL_B"):
        folder.link(name, model)
    new_images(folder, dataset, "scans")
    channels = read_json(dataset / "dataset.json")["channel_names"].values()
    folder.run(f"nnunet_ext unlabelled scans -o Dataset012_Unlabelled --channels {' '.join(channels)}")
    folder.dataset("Dataset049_Dense")
    folder.run("nnunet_ext simulate labels 49 -o Dataset050_Merged --keep 1")


@scene("docs/how-to/self-training.md")
def cases_with_and_without_labels(folder: Folder) -> None:
    dataset = folder.dataset("Dataset005_Heart", planned=True)
    folder.inputs(dataset)
    folder.link("MODEL", folder.model(dataset))
    shutil.copytree(dataset / "imagesTr", folder.root / "scans")


@example("adapt-weights")
def weights_and_planned_target(folder: Folder) -> None:
    model = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    for name in ("checkpoint_final.pth", "SOURCE"):
        folder.link(name, model / "fold_0" / "checkpoint_final.pth")
    target = folder.dataset("Dataset005_Clinic", planned=True)
    folder.run("nnUNetv2_train 5 3d_fullres 0 -tr nnUNetTrainerFineTune -pretrained_weights checkpoint_final.pth")
    folder.link("fold_0", folder.results / target.name / "nnUNetTrainerFineTune__nnUNetPlans__3d_fullres" / "fold_0")


@example("export-stock")
def model_to_export(folder: Folder) -> None:
    scribbles = folder.dataset("Dataset027_Heart", "ignore", planned=True)
    folder.inputs(scribbles)
    folder.link("MODEL", folder.model(scribbles, "nnUNetTrainerTDNet"))
