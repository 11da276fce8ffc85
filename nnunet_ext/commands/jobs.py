"""Run trainers x folds x seeds as a sweep, by Slurm or on this machine, and resume it.

Each training is nnU-Net's own nnUNetv2_train. One that was killed, preempted or out of time goes on from nnU-Net's last
checkpoint: by itself when Slurm requeues its job, else by `jobs resume`, which runs all that is not finished, failed
trainings too. SWEEP is a folder that remembers what was asked, the state of each training and its output; for Slurm it
must lie where the whole cluster sees it. The library submitit hands the jobs to Slurm.

start begins a sweep, or goes on with it if the same is asked again. With --seeds, each seed S gets a configuration
CONFIGURATION_sS in the plans. On this machine --local says how many trainings run at a time, in the background; with
several GPUs, each has one. For Slurm, --slurm has submitit's parameters, of which time (minutes) is needed.

status prints a table. Dice and best are nnU-Net's pseudo Dice: of the last epoch, and its best moving average. It exits
with 0 if all have finished, 1 if any has failed or stopped, 3 if all others are waiting or running. Examples:

    nnunet_ext jobs start -d 4 -c 3d_fullres -tr nnUNetTrainerMixUp nnUNetTrainerConfigurable -f 0 1 2 3 4 -o SWEEP
    nnunet_ext jobs start -d 4 -c 2d -tr nnUNetTrainerMixUp -f 0 --seeds 1 2 3 --local 2 -o SWEEP
    nnunet_ext jobs start -d 4 -c 2d -tr nnUNetTrainerMixUp -f 0 -o SWEEP --slurm time=720 gpus_per_node=1
    nnunet_ext jobs status SWEEP
    nnunet_ext jobs stop SWEEP
    nnunet_ext jobs resume SWEEP
"""

import argparse
import shlex
from pathlib import Path

from nnunet_ext.arguments import DEVICES, fold_name, not_negative, positive
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.jobs.sweep import FAILED, FINISHED, STOPPED, Resources, Sweep, SweepRequest
from nnunet_ext.messages import aligned
from nnunet_ext.nnunet_folders import folder_of_variable, preprocessed_folder
from nnunet_ext.nnunet_names import PLANS
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.programs import check_system

ALL_FINISHED, NEEDS_YOU, AT_WORK = 0, 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_start_arguments(actions.add_parser("start", help="begin a sweep, or go on with it"))
    for name, summary in (
        ("status", "print the state of each training"),
        ("resume", "run what is not finished"),
        ("stop", "end the jobs; trainings keep their last checkpoint"),
    ):
        about = f"{summary.capitalize()}. Example: nnunet_ext jobs {name} SWEEP"
        action = actions.add_parser(name, help=summary, description=about)
        action.add_argument("sweep", type=Path, metavar="SWEEP", help="folder of the sweep")


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    example = "nnunet_ext jobs start -d 4 -c 3d_fullres -tr nnUNetTrainerMixUp -f 0 1 2 -o SWEEP"
    parser.description = f"Begin a sweep, or go on with it. Example: {example}"
    parser.add_argument("-d", "--dataset", required=True, help="dataset id or name")
    parser.add_argument("-c", "--configuration", required=True, help="configuration in the plans")
    names = "class names of trainers"
    parser.add_argument("-tr", "--trainers", nargs="+", required=True, metavar="TRAINER", help=names)
    folds = "numbers of folds, or all"
    parser.add_argument("-f", "--folds", nargs="+", type=fold_name, required=True, metavar="FOLD", help=folds)
    parser.add_argument("--seeds", nargs="+", type=not_negative, metavar="S", help="train once for each of these seeds")
    parser.add_argument("-p", "--plans", default=PLANS, help="plans identifier (default: %(default)s)")
    devices = "device to train on; auto is the best of this machine, and cuda for Slurm (default: %(default)s)"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=devices)
    where = parser.add_mutually_exclusive_group()
    local = "run N trainings at a time on this machine (default: 1)"
    where.add_argument("--local", type=positive, metavar="N", help=local)
    slurm = "run by Slurm. Keys are those of submitit, named as options of sbatch with _ for -: time, partition, "
    slurm += (
        "account, gpus_per_node, cpus_per_task, mem, array_parallelism, signal_delay_s, setup, ..., max_num_timeout"
    )
    where.add_argument("--slurm", nargs="+", metavar="KEY=VALUE", help=slurm)
    parser.add_argument(
        "-o", "--output", "--out", type=Path, required=True, metavar="SWEEP", help="folder of the sweep"
    )


def run(args: argparse.Namespace) -> int:
    check_system()
    if args.action == "start":
        with only_run(args.output):
            return start(args)
    if args.action == "resume":
        with only_run(args.sweep):
            return submit(Sweep.read(args.sweep))
    return {"status": status, "stop": stop}[args.action](Sweep.read(args.sweep))


def start(args: argparse.Namespace) -> int:
    """Begin a sweep, or go on with it."""
    from nnunet_ext.jobs.control import open_sweep

    request = requested(args)
    check_trainers_take_seeds(request.trainers, with_seeds=request.seeds is not None)
    return submit(open_sweep(args.output, request, resources(args)))


def submit(sweep: Sweep) -> int:
    """Run what is not finished, and say what that is."""
    from nnunet_ext.jobs import control

    print(f"{control.submit(sweep)}\nSee: nnunet_ext jobs status {shlex.quote(str(sweep.folder))}")
    return 0


def status(sweep: Sweep) -> int:
    """Print the state of each training."""
    from nnunet_ext.jobs.control import states, status_table

    present = states(sweep)
    rows, reasons = status_table(sweep, present)
    print("\n\n".join([aligned(rows), *reasons]))
    if {FAILED, STOPPED} & set(present.values()):
        return NEEDS_YOU
    return ALL_FINISHED if set(present.values()) == {FINISHED} else AT_WORK


def stop(sweep: Sweep) -> int:
    """End the jobs."""
    from nnunet_ext.jobs.control import jobs_of

    print(jobs_of(sweep).stop())
    return 0


def requested(args: argparse.Namespace) -> SweepRequest:
    """What the arguments ask to be trained.

    A UserError says if the dataset, its plans or nnU-Net's folders are not there.
    """
    from nnunet_ext.formats.plans import require

    folder = preprocessed_folder(args.dataset).absolute()
    plans = read_plans(folder / f"{args.plans}.json")
    require(plans, ["plans_name"], where=folder / f"{args.plans}.json")
    results = folder_of_variable("nnUNet_results")
    return SweepRequest(
        dataset=folder.name,
        configuration=args.configuration,
        plans=args.plans,
        plans_name=plans["plans_name"],
        trainers=list(dict.fromkeys(args.trainers)),
        folds=list(dict.fromkeys(args.folds)),
        seeds=None if args.seeds is None else list(dict.fromkeys(args.seeds)),
        folders={"nnUNet_preprocessed": str(folder.parent), "nnUNet_results": str(Path(results).absolute())},
    )


def resources(args: argparse.Namespace) -> Resources:
    """How the arguments ask to run it."""
    from nnunet_ext.arguments import parse_settings

    if args.slurm is not None:
        # the machine that submits is often one without a GPU
        return Resources("cuda" if args.device == "auto" else args.device, slurm=parse_settings(args.slurm))

    from nnunet_ext.machine import choose_device

    return Resources(choose_device(args.device), local=args.local or 1)


def check_trainers_take_seeds(names: list[str], *, with_seeds: bool) -> None:
    """See that nnU-Net will find the trainers, and that they read the seed; a UserError if not."""
    from nnunet_ext.registry import TRAINERS

    for name in names:
        if any(entry.name == name for entry in TRAINERS):
            continue

        from nnunet_ext.checkpoints.networks import find_trainer
        from nnunet_ext.trainers.base import nnUNetTrainerConfigurable

        if not issubclass(find_trainer(name), nnUNetTrainerConfigurable) and with_seeds:
            raise UserError(
                f"{name} reads no settings from the plans, so that --seeds would change nothing. For stock nnU-Net "
                "with a seed, use nnUNetTrainerConfigurable."
            )
