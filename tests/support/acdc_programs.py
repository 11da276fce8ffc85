"""Stand-ins for what experiments on cine MRI of the heart need: a tiny original, and programs that train nothing."""

import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from benchmarks import experiment, in_process, steps
from benchmarks.in_process import run_command
from nnunet_ext.demo.run import CommandFailed, CommandRunner
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.settings import configured_settings, validated_settings

GROUPS = [[f"p{fold}{number}" for number in range(4)] for fold in range(5)]
PATIENTS = [patient for group in GROUPS for patient in group]
PAIRS = [{"patient": one, "prior": f"{one}_frame01", "current": f"{one}_frame09"} for one in PATIENTS]
NETWORK = {"patch_size": [8, 96, 112], "batch_size": 2, "spacing": [10.0, 1.5, 1.5]}


def write_origin(folder):
    """Two scans of each patient, on other grids, with scribbles and full masks as in the original."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr", "labelsTr_dense"):
        (folder / part).mkdir(parents=True)
    for pair in PAIRS:
        for phase, size in (("prior", (3, 9, 8)), ("current", (3, 8, 8))):
            image = sitk.GetImageFromArray((100 + rng.random(size)).astype(np.float32))
            labels = np.zeros(size, dtype=np.uint8)
            labels[1, 2:5, 2:4], labels[1, 2:5, 4], labels[1, 2:5, 5] = 1, 2, 3
            image.SetSpacing((1.5, 1.5, 10.0))
            reference = sitk.GetImageFromArray(labels)
            reference.CopyInformation(image)
            scribbles = np.full_like(labels, 4)
            scribbles[1, 3, 2:6] = labels[1, 3, 2:6]
            scribbles[1, 7, :] = 0
            drawn = sitk.GetImageFromArray(scribbles)
            drawn.CopyInformation(image)
            sitk.WriteImage(image, str(folder / "imagesTr" / f"{pair[phase]}_0000.nii.gz"))
            sitk.WriteImage(drawn, str(folder / "labelsTr" / f"{pair[phase]}.nii.gz"))
            sitk.WriteImage(reference, str(folder / "labelsTr_dense" / f"{pair[phase]}.nii.gz"))
    labels = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}
    description = {"channel_names": {"0": "cineMRI"}, "labels": labels, "numTraining": 40, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", description)
    write_json(folder / "two_phase_pairs.json", PAIRS)
    cases = [
        [pair[phase] for pair in PAIRS if pair["patient"] in group for phase in ("prior", "current")]
        for group in GROUPS
    ]
    everything = sorted(case for part in cases for case in part)
    splits = [{"train": [case for case in everything if case not in val], "val": val} for val in cases]
    write_json(folder / "splits_final.json", splits)


class Programs:
    """What stands in for nnU-Net's commands and for those of this package that take long."""

    def __init__(self):
        self.ran = []
        self.fail_at = None
        self.failure = CommandFailed("it failed")

    def runner(self):
        programs = self

        class Runner(CommandRunner):
            def run(self, name, command):
                self.shown.append(" ".join(command))
                programs.note(name, command)
                folders = {key: Path(self.environment[f"nnUNet_{key}"]) for key in ("raw", "preprocessed")}
                if command[0] == "nnunet_ext":
                    programs.make_dataset(command, folders["raw"])
                    return
                (raw,) = folders["raw"].glob(f"Dataset{command[2]}_*")
                preprocessed = folders["preprocessed"] / raw.name
                preprocessed.mkdir()
                shutil.copyfile(raw / "splits_final.json", preprocessed / "splits_final.json")
                plans = {"configurations": {command[4]: {"architecture": {}, "spacing": [10.0, 1.5, 1.5]}}}
                write_json(preprocessed / "nnUNetPlans.json", plans)

        return Runner

    def make_dataset(self, command, raw):
        """In place of a command that writes a raw dataset."""
        raise NotImplementedError

    def note(self, name, command):
        self.ran.append((name, list(command)))
        if name == self.fail_at:
            raise self.failure

    def carry_out(self, command, *, environment, log=None):
        """In place of `in_process.run_command`."""
        if command[1] == "configure":
            return run_command(command, environment=environment)
        if command[1] == "evaluate":
            self.note(log.stem, command)
            return self.evaluate(command, Path(environment["nnUNet_preprocessed"]))
        (folder,) = Path(environment["nnUNet_preprocessed"]).glob(f"Dataset{command[3]}_*")
        plans, base = read_json(folder / "nnUNetPlans.json"), command[command.index("-c") + 1]
        quick = {"inherits_from": base, "patch_size": [8, 96, 112], "batch_size": 2}
        plans["configurations"][f"{base}_quick"] = quick
        return write_json(folder / "nnUNetPlans.json", plans)

    def train(self, command, *, resume, environment, log):
        self.note(log.stem, [*command, *(["--c"] if resume else [])])
        _, dataset, configuration, fold, _, trainer, _, plans, *_ = command
        (preprocessed,) = Path(environment["nnUNet_preprocessed"]).glob(f"Dataset{dataset}_*")
        settings = configured_settings(read_json(preprocessed / f"{plans}.json"), configuration)
        validated_settings(settings, where="this test")
        assert int(fold) < len(read_json(preprocessed / "splits_final.json"))
        folder = Path(environment["nnUNet_results"]) / preprocessed.name / f"{trainer}__{plans}__{configuration}"
        (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
        weight = torch.zeros(7)
        checkpoint = {
            "network_weights": {"encoder.w": weight, "decoder.encoder.w": weight},
            "logging": {"epoch_start_timestamps": [0.0, 10.0], "epoch_end_timestamps": [3.0, 15.0]},
            "nnunet_ext": {"settings": settings},
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")

    def evaluate(self, command, preprocessed):
        model, fold = Path(command[2]), command[command.index("-f") + 1]
        assert (model / f"fold_{fold}" / "checkpoint_final.pth").is_file()
        out = Path(command[command.index("-o") + 1])
        out.mkdir()
        dataset, _, selection = command[command.index("--on") + 1].partition(":")
        assert selection == "val"
        (folder,) = preprocessed.glob(f"Dataset{dataset}_*")
        cases = read_json(folder / "splits_final.json")[int(fold)]["val"]
        write_json(out / "evaluation.json", {"datasets": [self.scores(model.name, dataset, cases)]})

    def scores(self, model, dataset, cases):
        """What the evaluation of a model finds."""
        value = self.dice(model, dataset)
        volumes = {"reference": 50.0, "predicted": 50.0, "both": 50 * value}
        return {
            "dataset": dataset,
            "foreground_mean": value,
            "dice": by_label(cases, value),
            "volumes": by_label(cases, volumes),
        }

    def dice(self, model, dataset):
        """Of all cases and labels."""
        raise NotImplementedError

    def names(self, start):
        return [name for name, _ in self.ran if name.startswith(start)]


def by_label(cases, value):
    """The same for each case and label, as in evaluation.json."""
    return {case: dict.fromkeys(("RV", "MYO", "LV"), value) for case in cases}


def install(programs, monkeypatch):
    """Let experiments run the stand-ins."""
    monkeypatch.setattr(experiment, "CommandRunner", programs.runner())
    monkeypatch.setattr(in_process, "train", programs.train)
    monkeypatch.setattr(in_process, "run_command", programs.carry_out)
    monkeypatch.setattr(steps, "commit", lambda repository: "abc")
