"""Turn a trained model into one that plain nnU-Net predicts with, on machines without this package.

Leaves out what only training needs (further decoders, the optimizer's state, the logs, the list of training cases),
renames the trainer, and keeps where the model comes from: trainer, settings, versions, checksums, in each checkpoint
and in nnunet_ext_export.json. Before OUT is there, the exported checkpoints are read back and must give exactly the
logits of the original network. nnU-Net's own postprocessing of the same folds goes along.

Some networks plain nnU-Net cannot build: the dual encoder and STU-Net. Then OUT has a folder nnUNet_extTrainer with one
file that needs nnU-Net alone; the environment variable nnUNet_extTrainer must name it where the model predicts.

nnU-Net overwrites a model of the same dataset, trainer, plans and configuration when it installs an archive (--zip).
The export is called nnUNetTrainer, as is the stock model that was trained beside it: install it elsewhere.

MODEL may be a zip archive that nnU-Net has exported. Nothing that is pickled in it is run, and no entry may lead out of
its place: so a model of unknown origin becomes one that holds tensors and plain data alone. Example:

    nnunet_ext export-stock nnUNet_results/Dataset027_Heart/nnUNetTrainerTDNet__nnUNetPlans__3d_fullres -o OUT
    nnUNetv2_predict_from_modelfolder -m OUT -i IN -o PREDICTIONS -f 0

    nnunet_ext export-stock MODEL --zip -o heart.zip
    nnUNetv2_install_pretrained_model_from_zip heart.zip
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nnunet_ext.arguments import fold_name
from nnunet_ext.checkpoints.archive import extract
from nnunet_ext.checkpoints.trained_model import find_trained_model
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, check_new_file, written_whole
from nnunet_ext.folders import folder_written_whole
from nnunet_ext.messages import listed
from nnunet_ext.nnunet_names import FINAL
from nnunet_ext.registration import register

if TYPE_CHECKING:
    from nnunet_ext.checkpoints.stock_export import Export

MEGABYTE = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    help_of_model = "nnU-Net's folder TRAINER__PLANS__CONFIGURATION, or a zip archive with one"
    parser.add_argument("model", type=Path, metavar="MODEL", help=help_of_model)
    parser.add_argument(
        "-o", "--output", "--out", dest="out", type=Path, required=True, help="folder to write; with --zip, a file"
    )
    folds = "to export (default: all that are there)"
    parser.add_argument("-f", "--folds", type=fold_name, nargs="+", metavar="FOLD", help=folds)
    parser.add_argument("--checkpoint", default=FINAL, help="to export (default: %(default)s)")
    archive = "write a zip archive for nnUNetv2_install_pretrained_model_from_zip"
    parser.add_argument("--zip", action="store_true", help=archive)
    inside = "where MODEL is an archive of several: the name of a folder in it, as the message about them lists it"
    parser.add_argument("--inside", metavar="FOLDER", help=inside)
    parser.add_argument("--force", action="store_true", help="replace OUT, if this command made it")


def run(args: argparse.Namespace) -> int:
    check_apart(args.out, [args.model])
    if args.zip:
        with only_run(args.out), tempfile.TemporaryDirectory(prefix="nnunet_ext_") as temporary:
            check_new_file(args.out, ending=".zip", sources=[args.model], force=args.force, is_own=_is_export)
            exported = Path(temporary) / "model"
            exported.mkdir()
            export = export_to(args, exported)
            write_zip(exported, args.out, inside=PurePosixPath(export.dataset, export.folder_name))
    else:
        with folder_written_whole(args.out, force=args.force) as unfinished:
            export = export_to(args, unfinished)
    print(export_summary(export, args.out, is_zip=args.zip))
    return 0


def export_to(args: argparse.Namespace, folder: Path) -> Export:
    """Export what was asked for into an existing folder."""
    from nnunet_ext.checkpoints.stock_export import export

    register()
    folds = None if args.folds is None else list(dict.fromkeys(args.folds))
    with model_folder(args.model, inside=args.inside) as source:
        return export(find_trained_model(source, folds, checkpoint=args.checkpoint), folder)


@contextmanager
def model_folder(model: Path, *, inside: str | None) -> Iterator[Path]:
    """The folder of a model, unpacked for the time being if it is an archive, where `inside` names one of several."""
    if model.is_dir():
        if inside is not None:
            raise UserError(f"--inside is for archives, and {model} is a folder. Name the model's own folder.")
        yield model
        return
    if not model.is_file():
        raise UserError(f"{model} does not exist. Expected: a model's folder, or a zip archive with one.")

    with tempfile.TemporaryDirectory(prefix="nnunet_ext_") as temporary:
        # pickles that are no checkpoints stay behind: nobody reads them
        taken = extract(model, Path(temporary), wanted=lambda path: path.suffix in (".json", ".pth"))
        with_checkpoints = {path.parent.parent for path in taken if path.suffix == ".pth"}
        plans = [path for path in taken if path.name == "plans.json"]
        there = sorted({str(path.parent) for path in plans if path.parent in with_checkpoints})
        if inside is None and len(there) == 1:
            (inside,) = there
        if inside not in there:
            if not there:
                raise UserError(f"{model} holds no model of nnU-Net: no folder with plans.json and fold_X/*.pth.")
            raise UserError(f"{model} holds these models; name one with --inside:{listed(there, len(there))}")
        yield Path(temporary) / inside


def _is_export(file: Path) -> bool:
    """Whether this command has written an archive."""
    from nnunet_ext.checkpoints.stock_export import PROVENANCE

    # what is no archive makes zipfile raise nearly anything
    with suppress(Exception), zipfile.ZipFile(file) as archive:
        return any(PurePosixPath(name).name == PROVENANCE for name in archive.namelist())
    return False


def write_zip(folder: Path, out: Path, *, inside: PurePosixPath) -> None:
    """Write a folder's files into an archive, below `inside`, whole or not at all."""
    with written_whole(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(file, str(inside / file.relative_to(folder).as_posix()))


def export_summary(export: Export, out: Path, *, is_zip: bool) -> str:
    """What was written, and how it is used."""
    lines = [f"{export.trainer} -> {export.exported_trainer}; the logits are the same in every fold."]
    for fold, one in export.folds.items():
        left_out = "".join(f", without {part} ({entries:,} weights)" for part, entries in one["left_out"].items())
        sizes = f"{one['bytes'] / MEGABYTE:.1f} -> {one['exported']['bytes'] / MEGABYTE:.1f} MB"
        lines.append(f"fold_{fold}: {sizes}{left_out}")
    if export.postprocessing is not None:
        lines.append(f"Postprocessing: {export.postprocessing}")
        if export.missed_labels:
            lines.append(
                "nnU-Net decided it with labels that nobody looked for counted as background, so it may remove what is "
                "right. Compare scores with and without it on cases that have every label."
            )
    elif export.other_postprocessing:
        lines.append(f"Postprocessing: none for these folds; there is {', '.join(export.other_postprocessing)}")
    lines.append(f"Wrote {out}")
    if is_zip:
        lines.append(f"Install: nnUNetv2_install_pretrained_model_from_zip {shlex.quote(str(out))}")
        installed = PurePosixPath(export.dataset, export.folder_name)
        lines.append(f"This overwrites {installed} where nnUNet_results has it.")
    if export.has_trainer_file:
        from nnunet_ext.checkpoints.stock_export import TRAINER_FOLDER

        folder = shlex.quote(str((out / TRAINER_FOLDER).resolve()))
        if is_zip:
            installed = PurePosixPath(export.dataset, export.folder_name, TRAINER_FOLDER)
            folder = f'"$nnUNet_results"/{shlex.quote(str(installed))}'
        lines.append(f"Where it predicts: export nnUNet_extTrainer={folder}")
    folds = " ".join(map(str, export.folds))
    command = f"nnUNetv2_predict_from_modelfolder -m {shlex.quote(str(out))}"
    if is_zip:
        names = {"-d": export.dataset, "-tr": export.exported_trainer, "-p": export.plans, "-c": export.configuration}
        command = shlex.join(["nnUNetv2_predict", *(part for pair in names.items() for part in pair)])
    command += f" -i IN -o OUT -f {folds}"
    if export.previous_stage is not None:
        stage = export.previous_stage
        lines.append(f"The second stage of a cascade: export {stage} too, and predict IN with that first.")
        command += f" -prev_stage_predictions {shlex.quote(f'PREDICTIONS_OF_{stage}')}"
    lines.append(f"Predict: {command}")
    return "\n".join(lines)
