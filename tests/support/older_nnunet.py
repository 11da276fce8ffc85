"""Do exported models predict the same on older releases of nnU-Net? ``make older``.

One tiny model of each kind of network is trained and exported here. Each release of nnU-Net gets an environment of its
own, without this package, whose ``nnUNetv2_predict_from_modelfolder`` predicts the same images as that of this
environment. The result is a table. Environments stay for the next run; ``make clean`` removes them.

It is here and not among the benchmarks since it trains on the tests' data with the tests' functions.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from tqdm import tqdm

import nnunet_ext
from benchmarks.engine.provenance import REPOSITORY, machine_line, markdown_table, provenance_lines
from nnunet_ext.checkpoints.sources.stunet import NETWORK as STUNET
from nnunet_ext.checkpoints.stock_export import TRAINER_FOLDER
from nnunet_ext.claims import only_run
from nnunet_ext.cli import FINE, INTERRUPTED, PROBLEM, WRONG_USAGE
from nnunet_ext.cli import main as nnunet_ext_command
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_text
from nnunet_ext.programs import CommandFailed, check_status, find_executable, running
from support.nnunet_runs import train
from support.tiny_data import PREPARED, dataset_name
from support.workspace import Workspace, prepare

PREDICT = "nnUNetv2_predict_from_modelfolder"
VERSIONS = ("2.5", "2.6", "2.7", "2.8")
READS_THE_VARIABLE = (2, 8)
"""The first release that looks for trainers in the folder that nnUNet_extTrainer names."""
BUILDS_FROM_PLANS = (2, 7)
"""The first release that gives the whole plans to the trainer that builds a network."""

TOLERANCE = 0.01
"""Of a probability: nnU-Net adds up the logits of overlapping patches in half precision."""

SPACINGS = ((1.0, 1.0, 1.0), (0.8, 0.9, 1.0), (0.7, 0.7, 2.8))  # mm; the last is resampled along its axes apart
SETTINGS = {"num_epochs": 1, "num_iterations_per_epoch": 60, "num_val_iterations_per_epoch": 1, "seed": 7}
PACKAGES = ("nnunetv2", "torch", "dynamic_network_architectures", "numpy")
ABOUT = """
import json, platform
from importlib.metadata import version
from importlib.util import find_spec
assert find_spec("nnunet_ext") is None, "this package is installed here"
versions = {{name: version(name) for name in {packages}}}
folder = find_spec("nnunetv2").submodule_search_locations[0]
print(json.dumps({{"python": platform.python_version(), **versions, "folder": folder}}))
"""
EXCEPTION = re.compile(r"^\w[\w.]*(?:Error|Exception)\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """A kind of network, and the training that gives a model of it."""

    title: str
    trainer: str
    data: str  # of `support.tiny_data.KINDS`
    plans: str = "nnUNetPlans"
    architecture: Mapping[str, Any] = field(default_factory=dict)  # changes of the plans'
    has_trainer_file: bool = False  # whether the export brings a trainer, as nnU-Net cannot build the network

    def runs_on(self, version: str) -> bool:
        """Whether the export is to predict on a release of nnU-Net."""
        return not self.has_trainer_file or numbers(version) >= BUILDS_FROM_PLANS


def stunet_architecture() -> dict[str, Any]:
    """A STU-Net as small as the other networks."""
    arguments = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_blocks_per_stage": [1, 1, 1],
    }
    return {"network_class_name": STUNET, "arch_kwargs": arguments, "_kw_requires_import": ["conv_op"]}


KINDS = (
    Kind("U-Net", "nnUNetTrainerMixUp", "labels"),
    Kind("regions, ignore label", "nnUNetTrainerMixUp", "regions"),
    Kind("further decoders", "nnUNetTrainerTDNet", "ignore"),
    Kind("residual encoder", "nnUNetTrainerMixUp", "labels", plans="nnUNetResEncUNetMPlans"),
    Kind("dual encoder", "nnUNetTrainerDualEncoder", "prior", has_trainer_file=True),
    Kind("STU-Net", "nnUNetTrainerMixUp", "labels", architecture=stunet_architecture(), has_trainer_file=True),
)


@dataclass(frozen=True)
class Exported:
    """An exported model with the images to predict, and what this environment predicts."""

    kind: Kind
    model: Path
    images: Path
    expected: Path


@dataclass(frozen=True)
class Outcome:
    """How predictions differ from those of this environment, or why there are none."""

    voxels: int = 0
    differing: int = 0  # voxels with another label
    difference: float = 0.0  # the largest of a probability
    failure: str | None = None

    @property
    def is_the_same(self) -> bool:
        """But for rounding."""
        return self.failure is None and self.difference <= TOLERANCE

    @property
    def cell(self) -> str:
        """As the table has it."""
        if self.failure is not None:
            return "fails"
        return "equal" if not self.differing else f"{100 * self.differing / self.voxels:.2g} % differ"


@dataclass(frozen=True)
class Release:
    """What a release of nnU-Net did."""

    version: str  # such as 2.5
    about: Mapping[str, str] = field(default_factory=dict)  # versions of what is installed; none if that failed
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)  # by the title of the kind of network


def numbers(version: str) -> tuple[int, ...]:
    """A version's parts, to compare it with others."""
    return tuple(int(part) for part in version.split("."))


def release(text: str) -> str:
    """A release as the command line names it; a ValueError if it is none."""
    if not re.fullmatch(r"\d+\.\d+", text):
        raise ValueError(text)
    return text


def run(command: Sequence[str], log: Path, **variables: str) -> None:
    """Run a program without this package on its path; a CommandFailed with its last output if it does not succeed."""
    with open(log, "wb") as output:
        outside = {"PYTHONPATH": "", "nnUNet_extTrainer": "", **variables}
        with running(command, output, outside) as process:
            status = process.wait()
    check_status(status, shlex.join(command), log)


# ---------------------------------------------------------------------- models


@contextlib.contextmanager
def tiny_workspace(folder: Path) -> Iterator[Workspace]:
    """nnU-Net's folders with the tests' data, and its variables."""
    space = Workspace(folder / "workspace")
    if os.environ.get(PREPARED):
        shutil.copytree(os.environ[PREPARED], space.root)
    else:
        space.root.mkdir()
        prepare(space.root)
    with pytest.MonkeyPatch.context() as patch:
        for name, path in space.environment().items():
            patch.setenv(name, path)
        patch.setenv("nnUNet_results", str(folder / "results"))
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_extTrainer", "")
        patch.setattr(MetaLogger, "plot_progress_png", lambda self, output_folder: None)
        nnunet_ext.register()
        yield space


def export_model(kind: Kind, space: Workspace, folder: Path) -> Exported:
    """Train a model, export it, and predict with the export."""
    dataset = dataset_name(kind.data)
    file = space.preprocessed / dataset / f"{kind.plans}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    configuration = {"inherits_from": "3d_tiny", "nnunet_ext": SETTINGS}
    if kind.architecture:
        configuration["architecture"] = kind.architecture
    name = f"older_{kind.title}"
    plans["configurations"][name] = configuration
    file.write_text(json.dumps(plans), encoding="utf-8")
    exported = Exported(kind, folder / "model", folder / "images", folder / "expected")
    with contextlib.redirect_stdout(io.StringIO()):  # a page of each training
        trained = Path(train(kind.trainer, name, kind=kind.data, plans=kind.plans).output_folder).parent
        status = nnunet_ext_command(["export-stock", str(trained), "-o", str(exported.model)])
    if status != FINE:
        raise UserError(f"{kind.title}: the model was not exported; the message is above.")
    exported.images.mkdir()
    for number, spacing in enumerate(SPACINGS):
        for source in sorted((space.raw / dataset / "imagesTr").glob(f"case_{number}_*")):
            image = sitk.ReadImage(str(source))
            image.SetSpacing(spacing)
            sitk.WriteImage(image, str(exported.images / source.name))
    trainers = {TRAINER_FOLDER: str(exported.model / TRAINER_FOLDER)} if kind.has_trainer_file else {}
    predict(find_executable(PREDICT), exported, exported.expected, **trainers)
    if len(np.unique(np.concatenate([labels(file).ravel() for file in label_maps(exported.expected)]))) == 1:
        raise UserError(f"{kind.title}: the model predicts one label alone, which shows nothing. Train it for longer.")
    return exported


def predict(program: Path, exported: Exported, out: Path, **variables: str) -> None:
    """Predict the images with labels and probabilities, in a process of its own."""
    folders = ["-m", str(exported.model), "-i", str(exported.images), "-o", str(out)]
    options = ["-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--save_probabilities", "--disable_progress_bar"]
    run([str(program), *folders, *options], out.with_name(f"{out.name}.log"), **variables)


# ---------------------------------------------------------------------- other releases


def environment(version: str, folder: Path, torch: str) -> Path:
    """A folder with an environment that has a release of nnU-Net: the one that is there, or a new one.

    Args:
        version: such as 2.5, of which the newest release is taken.
        folder: in which the environments are.
        torch: what pip installs first.

    Raises:
        CommandFailed: if pip does not succeed.
    """
    target = folder / f"nnunetv2-{version}"
    request = f"nnunetv2=={version}.*"
    stamp, wanted = target / "installed.txt", f"{request} {torch} {sys.version}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return target
    shutil.rmtree(target, ignore_errors=True)
    print(f"nnunetv2 {version}: installing, which takes minutes (log: {target}.log)", flush=True)
    venv.create(target, with_pip=True, symlinks=os.name != "nt")
    pip = [str(program(target, "python")), "-m", "pip", "install", "--quiet"]
    for requests in [shlex.split(torch), [request]]:
        if requests:
            run([*pip, *requests], folder / f"{target.name}.log")
    stamp.write_text(wanted, encoding="utf-8")
    return target


def program(target: Path, name: str) -> Path:
    """A program of an environment."""
    found = shutil.which(name, path=str(target / ("Scripts" if os.name == "nt" else "bin")))
    if found is None:
        raise UserError(f"{target} has no program {name}. Remove the folder and run this again.")
    return Path(found)


def about(target: Path) -> dict[str, str]:
    """Versions of what an environment holds, and the folder of its nnunetv2."""
    log = target / "about.json"
    run([str(program(target, "python")), "-I", "-c", ABOUT.format(packages=PACKAGES)], log)
    found: dict[str, str] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])  # behind warnings
    return found


@contextlib.contextmanager
def trainer_known(exported: Exported, version: str, package: Path) -> Iterator[dict[str, str]]:
    """Show nnU-Net the trainer that an export brings: by the variable, or as older releases ask for it, in their own
    folder of trainers. Gives the variables to set."""
    folder = exported.model / TRAINER_FOLDER
    if numbers(version) >= READS_THE_VARIABLE:
        yield {TRAINER_FOLDER: str(folder)}
        return
    copies = [package / "training" / "nnUNetTrainer" / file.name for file in folder.glob("*_inference.py")]
    try:
        for copy in copies:
            shutil.copy(folder / copy.name, copy)
        yield {}
    finally:
        for copy in copies:
            copy.unlink(missing_ok=True)


def try_release(version: str, models: Sequence[Exported], work: Path, torch: str) -> Release:
    """Predict every model with a release of nnU-Net; messages about what failed go to standard error."""
    try:
        target = environment(version, work, torch)
    except CommandFailed as error:
        print(f"nnunetv2 {version} could not be installed: {error}", file=sys.stderr)
        return Release(version)
    found = about(target)
    outcomes = {}
    for exported in tqdm(models, desc=f"nnunetv2 {found['nnunetv2']}", unit="model", disable=None):
        out = exported.model.parent / version
        try:
            if exported.kind.has_trainer_file:
                with trainer_known(exported, version, Path(found["folder"])) as variables:
                    predict(program(target, PREDICT), exported, out, **variables)
            else:
                predict(program(target, PREDICT), exported, out)
            outcome = compared(exported.expected, out)
        except CommandFailed as error:
            outcome = Outcome(failure=reason(out.with_name(f"{out.name}.log"), work))
            if exported.kind.runs_on(version):
                print(f"nnunetv2 {version}, {exported.kind.title}: {error}", file=sys.stderr)
        outcomes[exported.kind.title] = outcome
    return Release(version, {name: found[name] for name in ("python", *PACKAGES)}, outcomes)


def reason(log: Path, work: Path) -> str:
    """The first exception of a log, without folders of this machine."""
    lines = EXCEPTION.findall(log.read_text(encoding="utf-8", errors="replace"))
    return lines[0].replace(str(work), "$WORK") if lines else "no exception is in its output"


# ---------------------------------------------------------------------- comparison


def label_maps(folder: Path) -> list[Path]:
    """The predicted label maps of a folder."""
    return sorted(folder.glob("*.nii.gz"))


def labels(file: Path) -> np.ndarray:
    """The voxels of a label map."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def compared(expected: Path, found: Path) -> Outcome:
    """How the label maps and probabilities of two folders differ."""
    files = label_maps(expected)
    if [file.name for file in files] != [file.name for file in label_maps(found)]:
        return Outcome(failure="other cases are predicted")
    voxels = differing = 0
    difference = 0.0
    for file in files:
        before, after = labels(file), labels(found / file.name)
        voxels += before.size
        differing += int((before != after).sum())
        pair = [np.load(folder / file.name.replace(".nii.gz", ".npz"))["probabilities"] for folder in (expected, found)]
        difference = max(difference, float(np.abs(pair[0] - pair[1]).max()))
    return Outcome(voxels, differing, difference)


def report(releases: Sequence[Release], kinds: Sequence[Kind]) -> list[str]:
    """The result as Markdown."""
    titles = [kind.title for kind in kinds]

    def rows(cell: Callable[[Outcome], str]) -> list[tuple[str, ...]]:
        installed = [release for release in releases if release.about]
        return [(release.version, *(cell(release.outcomes[title]) for title in titles)) for release in installed]

    missing = [release.version for release in releases if not release.about]
    lines = ["# Exported models on older releases of nnU-Net", "", "Label maps beside those of this environment:", ""]
    lines += markdown_table(("nnunetv2", *titles), rows(lambda one: one.cell))
    lines += ["", f"Not installed: {', '.join(missing)}."] if missing else []
    lines += ["", "The largest difference of a probability:", ""]
    lines += markdown_table(("nnunetv2", *titles), rows(lambda one: "-" if one.failure else f"{one.difference:.1g}"))
    lines += ["", "Installed, on the CPU:", ""]
    names = ("nnunetv2", "python", *PACKAGES[1:])
    lines += markdown_table(names, [tuple(one.about[name] for name in names) for one in releases if one.about])
    failures = [
        f"- {release.version}, {title}: `{outcome.failure}`"
        for release in releases
        for title, outcome in release.outcomes.items()
        if outcome.failure
    ]
    return [*lines, "", "What fails:", "", *failures] if failures else lines


def is_good(release: Release, kinds: Sequence[Kind]) -> bool:
    """Whether everything that is to run on a release gives the same."""
    return bool(release.about) and all(
        release.outcomes[kind.title].is_the_same for kind in kinds if kind.runs_on(release.version)
    )


# ---------------------------------------------------------------------- command


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m support.older_nnunet", description=(__doc__ or "").split("\n")[0])
    out = REPOSITORY / "benchmarks" / "results" / "older_nnunet.md"
    parser.add_argument("--versions", type=release, nargs="+", default=VERSIONS, metavar="X.Y", help="(default: all)")
    parser.add_argument("--torch", default="", metavar="ARGUMENTS", help="what pip installs first, such as CPU builds")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "older_output", help="folder of the environments")
    parser.add_argument("--out", type=Path, default=out, help="the table to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Try the releases and write the table; 1 if something that is to run does not give the same."""
    args = build_parser().parse_args(argv)
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        with only_run(work), tempfile.TemporaryDirectory(dir=work, prefix="models_") as temporary:
            models = []
            with tiny_workspace(Path(temporary)) as space:
                for kind in tqdm(KINDS, desc="Training and exporting", unit="model", disable=None):
                    folder = Path(temporary, kind.title)
                    folder.mkdir()
                    models.append(export_model(kind, space, folder))
            releases = [try_release(version, models, work, args.torch) for version in args.versions]
    except (UserError, CommandFailed) as error:
        print(f"older: {error}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        print("older: interrupted; environments that are complete stay for the next run.", file=sys.stderr)
        return INTERRUPTED
    lines = report(releases, KINDS)
    command = "make older TORCH=..." if args.torch else "make older"  # its value may name a host
    provenance = provenance_lines([machine_line("cpu")], [command])
    write_text(args.out, "\n".join([*lines, "", "This environment:", "", *provenance]) + "\n")
    print("\n".join(lines))
    return FINE if all(is_good(release, KINDS) for release in releases) else PROBLEM


if __name__ == "__main__":
    sys.exit(main())
