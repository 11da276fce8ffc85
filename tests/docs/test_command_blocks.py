"""Every block of commands in README and documentation runs, page by page from top to bottom, in a folder that has what
the page takes for granted. Trainings are two steps long, and run on the CPU."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.command_blocks import Folder
from support.scan_pairs import box, scan, textured, write_pair, write_table
from support.sweeps import StandIn

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>bash|sh|console|powershell)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)

NOT_RUN = {
    r"pip install .*": "installing has tests of its own, tests/test_packaging.py",
    r"make .*|\.venv/bin/.*|python docs/generate_reference\.py": "what continuous integration runs",
    r"python -m benchmarks\..*": "hours of training; tests/benchmarks runs each with little",
    r"\$env:.*": "PowerShell",
    r"nnunet_ext demo.*": "minutes of training; tests/demo runs it with programs that stand in",
    r".* -device mps": "needs an Apple GPU",
    r".* -num_gpus 2": "needs two GPUs",
    r".*--slurm.*": "needs Slurm; tests/jobs/test_slurm.py compares what is submitted",
}


def lines(page: Path) -> Iterator[str]:
    """The commands of a page, without comments and what they print."""
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        for line in re.sub(r"\\\n\s*", "", body).splitlines():
            if match["language"] == "console" and not line.startswith("$ "):
                continue
            if line.strip() and not line.startswith("#"):
                yield line.removeprefix("$ ")


def is_run(line: str) -> bool:
    return not any(re.fullmatch(pattern, line) for pattern in NOT_RUN)


Scene = Callable[[Folder], None]
SCENES: dict[str, Scene] = {}


def scene(*pages: str) -> Callable[[Scene], Scene]:
    def register(function: Scene) -> Scene:
        SCENES.update(dict.fromkeys(pages, function))
        return function

    return register


@scene("README.md", "docs/index.md", "docs/get-started.md", "docs/how-to/devices.md", "docs/techniques/mixup.md")
def one_dataset(folder: Folder) -> None:
    dataset = folder.dataset("Dataset004_Hippocampus", planned=True)
    folder.inputs(dataset)
    model = folder.results / dataset.name / "nnUNetTrainerMixUp__nnUNetPlans__3d_fullres_quick"
    (folder.root / "MODEL").symlink_to(model, target_is_directory=True)


@scene("docs/how-to/adapt-weights.md")
def weights_and_target(folder: Folder) -> None:
    model = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    (folder.root / "checkpoint_final.pth").symlink_to(model / "fold_0" / "checkpoint_final.pth")
    folder.dataset("Dataset005_Clinic")
    for line in (
        "nnUNetv2_plan_and_preprocess -d 5 --no_pp",
        "nnUNetv2_move_plans_between_datasets -s 4 -t 5 -sp nnUNetPlans -tp nnUNetPlans_from_4",
        "nnUNetv2_preprocess -d 5 -plans_name nnUNetPlans_from_4 -c 3d_fullres",
    ):
        folder.run(line)


@scene("docs/how-to/few-shot.md", "docs/techniques/fine-tuning.md")
def source_and_few_cases(folder: Folder) -> None:
    source = folder.model(folder.dataset("Dataset004_Hippocampus", planned=True))
    target = folder.dataset("Dataset005_Clinic", cases=8)
    folder.inputs(target)
    (folder.root / "SOURCE.pth").symlink_to(source / "fold_0" / "checkpoint_final.pth")
    tuned = folder.results / target.name / "nnUNetTrainerDGST__nnUNetPlans_from_4__3d_fullres_tuned"
    (folder.root / "TUNED_MODEL").symlink_to(tuned, target_is_directory=True)
    folder.run(f"nnunet_ext evaluate {shlex.quote(str(source))} --on 5:test --on 4:test -o evaluation_stock")


@scene("docs/how-to/deploy.md")
def models_to_deploy(folder: Folder) -> None:
    # the page has one folder IN for both models
    scribbles = folder.dataset("Dataset027_Heart", "prior_ignore", planned=True)
    model = folder.model(scribbles, "nnUNetTrainerTDNet")
    folder.every_fold(model)
    (folder.root / "MODEL").symlink_to(model, target_is_directory=True)
    folder.inputs(scribbles)
    folder.run(
        "nnUNetv2_export_model_to_zip -d 27 -o model_from_elsewhere.zip -c 3d_fullres -f 0 -tr nnUNetTrainerTDNet"
    )
    pairs = folder.dataset("Dataset811_Heart", "prior_ignore", planned=True)
    dual = folder.model(pairs, "nnUNetTrainerDualEncoder")
    (folder.root / "DUAL_ENCODER_MODEL").symlink_to(dual, target_is_directory=True)


@scene("docs/how-to/report.md")
def models_to_compare(folder: Folder) -> None:
    dataset = folder.dataset("Dataset811_Heart", planned=True)
    (dataset / "pairs.json").write_text(json.dumps({f"case_{number}": f"patient {number}" for number in range(5)}))
    for name, trainer in (("A", "nnUNetTrainer"), ("B", "nnUNetTrainerMixUp")):
        model = folder.model(dataset, trainer)
        (folder.root / f"MODEL_{name}").symlink_to(model, target_is_directory=True)
    for letter, name in (("S", "A"), ("M", "B")):
        folder.run(f"nnunet_ext evaluate MODEL_{name} --on 811:all -o EVALUATION_{letter}0")
        shutil.copytree(folder.root / f"EVALUATION_{letter}0", folder.root / f"EVALUATION_{letter}1")


@scene("docs/how-to/clusters.md")
def sweeps(folder: Folder) -> None:
    folder.dataset("Dataset004_Hippocampus", planned=True)
    programs = folder.root / "programs"
    programs.mkdir()
    stand_in = StandIn(programs)
    folder.monkeypatch.setattr("nnunet_ext.programs.find_executable", lambda name: stand_in.folder / name)


def patients(folder: Folder, table: str, names: tuple[str, ...], *, labelled: bool) -> None:
    """A table of scans with priors, of three labels each."""
    shape = (12, 20, 28)
    rows = []
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


@scene("docs/techniques/models-genesis.md")
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
    (folder.root / "PRETRAINED").symlink_to(pretrained, target_is_directory=True)
    model = folder.model(dataset, "nnUNetTrainerDBDMP")
    folder.every_fold(model)


@scene("docs/techniques/scribbles.md")
def scribbled(folder: Folder) -> None:
    dataset = folder.dataset("Dataset027_Heart", "ignore")
    shutil.copytree(folder.workspace.raw / "Dataset901_Labels" / "labelsTr", dataset / "labelsTr_dense")
    folder.inputs(dataset)
    folder.dataset("Dataset005_Dense")


def without_what_stands_in_the_way(folder: Folder, line: str, written: set[str]) -> None:
    """Remove what an earlier command of the page wrote and this one writes again: a page shows alternatives."""
    found = re.search(r" -o ([^ ]+)", line)
    if found is None:
        return
    target = folder.raw / found[1] if found[1].startswith("Dataset") else folder.root / found[1]
    if found[1] in written and target.is_dir():
        shutil.rmtree(target)
    elif found[1] in written:
        target.unlink(missing_ok=True)
    written.add(found[1])


@pytest.mark.parametrize("page", sorted(SCENES))
def test_the_commands_of_a_page_run(page: str, workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "a folder"
    root.mkdir()
    folder = Folder(root, workspace, monkeypatch)
    SCENES[page](folder)
    written: set[str] = set()
    for line in filter(is_run, lines(ROOT / page)):
        without_what_stands_in_the_way(folder, line, written)
        folder.run(line)


def test_every_page_with_commands_has_a_scene() -> None:
    with_commands = {page.relative_to(ROOT).as_posix() for page in PAGES if any(map(is_run, lines(page)))}
    assert with_commands == {*SCENES, "docs/reference/commands.md"}


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_exception_is_still_needed(pattern: str) -> None:
    assert any(re.fullmatch(pattern, line) for page in PAGES for line in lines(page))
