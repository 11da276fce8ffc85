"""Simulate sparse annotations from dense ones, as a new raw dataset of the same images.

``instances`` leaves only some instances annotated in each case and turns the others into background. The instances are
those of the maps in SOURCE's folder instancesTr, or without it the connected components of each label: then instances
of one label that touch, if only at a corner, count as one. In every case at least one instance stays. Voxels of an
ignore label stay as they are. labelsTr_dense keeps the dense labels, instancesTr the instance maps, instances.json what
was kept, and splits_final.json the source's folds. Example:

    nnunet_ext simulate instances 702 -o Dataset712_Lesions30 --keep 0.3
    nnunet_ext simulate instances 702 -o Dataset713_Largest --keep 0.5 --order largest --scope dataset
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nnunet_ext.arguments import not_negative, share

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.partial_annotation import Simulation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    add_instances_arguments(kinds.add_parser("instances", help="only some instances stay annotated"))


def run(args: argparse.Namespace) -> int:
    return args.simulate(args)


def add_instances_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Leave only some instances annotated. Example: nnunet_ext simulate instances 702 -o Dataset712_Lesions30 "
        "--keep 0.3"
    )
    parser.add_argument("source", metavar="SOURCE", help="id or name of the raw dataset with dense labels")
    parser.add_argument("-o", "--output", required=True, metavar="DatasetXXX_Name", help="raw dataset to write")
    parser.add_argument("--keep", type=share, required=True, metavar="SHARE", help="of the instances, up to 1")
    parser.add_argument(
        "--scope",
        choices=("case", "dataset"),
        default="case",
        help="where the share holds: in each case, or over all of them (default: %(default)s)",
    )
    parser.add_argument(
        "--order",
        choices=("random", "largest", "smallest"),
        default="random",
        help="which instances are kept first (default: %(default)s)",
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="S", help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--instances",
        metavar="FOLDER",
        help="folder of instance maps in SOURCE, or `components` for the connected components of each label (default: "
        "instancesTr if it is there)",
    )
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name that this package made")
    parser.set_defaults(simulate=simulate_instances)


def simulate_instances(args: argparse.Namespace) -> int:
    from nnunet_ext.evaluation.text_table import aligned
    from nnunet_ext.preprocessing.partial_annotation import (
        COMPONENTS,
        Selection,
        origin_of_instances,
        simulate_partial_annotation,
    )
    from nnunet_ext.preprocessing.raw_dataset import read_raw_dataset

    source = read_raw_dataset(args.source)
    origin = origin_of_instances(source, args.instances)
    selection = Selection(args.keep, args.scope, args.order, args.seed)
    simulation = simulate_partial_annotation(source, args.output, selection, origin=origin, force=args.force)

    kind = "the connected components of each label" if origin == COMPONENTS else f"those of {origin}"
    print(f"Wrote {args.output} from {source.folder.name}; instances are {kind}.\n")
    print(aligned(table(simulation, source.foreground_values())))
    if simulation.without_foreground:
        print(f"\nWarning: {simulation.without_foreground} of {simulation.cases} cases have no instance at all.")
    if simulation.unassigned:
        print(
            f"\nIn {simulation.unassigned} of {simulation.cases} cases some foreground belongs to no instance; it "
            "stays annotated."
        )
    number = args.output[len("Dataset") :][:3]
    configuration = "2d" if simulation.flat else "3d_fullres"
    print(
        f"\nNext:\n  nnunet_ext check -d {number} --trainer nnUNetTrainerDBDMP\n  nnUNetv2_plan_and_preprocess -d "
        f"{number}\n  nnUNetv2_train {number} {configuration} 0 -tr nnUNetTrainerDBDMP"
    )
    return 0


def table(simulation: Simulation, labels: Mapping[str, int]) -> list[list[str]]:
    """Rows of cells: for each label how many cases have it, and what of it stays annotated."""
    rows = [["label", "cases", "instances kept", "of", "voxels kept", "of"]]
    chosen = {name: {value} for name, value in labels.items()}
    for name, values in {**chosen, **({"all": set(labels.values())} if len(labels) > 1 else {})}.items():
        members = [instance for instance in simulation.instances if instance.label in values]
        kept = [instance for instance in members if instance in simulation.kept]
        cases = len({instance.case for instance in members})
        voxels = [sum(instance.voxels for instance in part) for part in (kept, members)]
        rows.append([name, *map(str, (cases, len(kept), len(members), *voxels))])
    return rows
