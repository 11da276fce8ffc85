"""Simulate sparse annotations from dense ones, as a new raw dataset of the same images.

``instances`` leaves only some instances annotated in each case and turns the others into background. The instances are
those of the maps in SOURCE's folder instancesTr, or without it the connected components of each label: then instances
of one label that touch, if only at a corner, count as one. In every case at least one instance stays. Voxels of an
ignore label stay as they are. labelsTr_dense keeps the dense labels, instancesTr the instance maps, instances.json what
was kept, and splits_final.json the source's folds.

``scribbles`` leaves only strokes annotated, slice by slice, and turns the other voxels into the ignore label, which is
added if the source has none. A class in a slice, background included, has a stroke along its skeleton and, where it is
wide enough, another near its boundary. By default the strokes annotate about as much, and are about as often wrong, as
those that people drew into ACDC's images; --noise 0 draws no voxel wrong. Every class of a slice that is drawn in has a
stroke there, and every class of a case in at least one slice, for which a slice more is drawn in if need be. Of the
separate parts of a class the largest has strokes, and so have those that are not much smaller. A case's strokes depend
on its name, the seed and its labels alone. labelsTr_dense keeps the dense labels, scribbles.json what was drawn, and
splits_final.json the source's folds. Example:

    nnunet_ext simulate instances 702 -o Dataset712_Lesions30 --keep 0.3
    nnunet_ext simulate instances 702 -o Dataset713_Largest --keep 0.5 --order largest --scope dataset
    nnunet_ext simulate scribbles 4 -o Dataset714_Scribbles
    nnunet_ext simulate scribbles 4 -o Dataset715_Few --slices 0.2 --length 0.4 --noise 1 --axis z
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from nnunet_ext.arguments import (
    add_new_dataset_options,
    not_negative,
    not_negative_number,
    positive,
    share,
    share_or_none,
)
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.messages import next_steps

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.simulate.partial_annotation import PartialAnnotation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    add_instances_arguments(kinds.add_parser("instances", help="only some instances stay annotated"))
    add_scribbles_arguments(kinds.add_parser("scribbles", help="only strokes stay annotated"))


def run(args: argparse.Namespace) -> int:
    return args.simulate(args)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What both kinds take."""
    parser.add_argument("source", metavar="SOURCE", help="id or name of the raw dataset with dense labels")
    add_new_dataset_options(parser)
    parser.add_argument("--seed", type=not_negative, default=0, metavar="S", help="random seed (default: %(default)s)")


def add_instances_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Leave only some instances annotated. Example: nnunet_ext simulate instances 702 -o Dataset712_Lesions30 "
        "--keep 0.3"
    )
    add_common_arguments(parser)
    parser.add_argument(
        "--keep", type=share, required=True, metavar="SHARE", help="share of the instances to keep, up to 1"
    )
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
    parser.add_argument(
        "--instances",
        metavar="FOLDER",
        help="folder of instance maps in SOURCE, or `components` for the connected components of each label (default: "
        "instancesTr if it is there)",
    )
    parser.set_defaults(simulate=simulate_instances)


def simulate_instances(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.simulate.partial_annotation import (
        COMPONENTS,
        Selection,
        origin_of_instances,
        simulate_partial_annotation,
    )

    source = read_raw_dataset(args.source)
    origin = origin_of_instances(source, args.instances)
    selection = Selection(args.keep, args.scope, args.order, args.seed)
    simulation = simulate_partial_annotation(source, args.output, selection, origin=origin, force=args.force)

    kind = "the connected components of each label" if origin == COMPONENTS else f"those of {origin}"
    print(f"Wrote {args.output} from {source.folder.name}; instances are {kind}.\n")
    print(aligned(instance_table(simulation, source.foreground_values())))
    if simulation.without_foreground:
        print(f"\nWarning: {simulation.without_foreground} of {simulation.cases} cases have no instance at all.")
    if simulation.unassigned:
        print(
            f"\nIn {simulation.unassigned} of {simulation.cases} cases some foreground belongs to no instance; it "
            "stays annotated."
        )
    configuration = "2d" if simulation.flat else "3d_fullres"
    print(next_steps(args.output, "nnUNetTrainerDBDMP", configuration=configuration))
    return 0


def instance_table(simulation: PartialAnnotation, labels: Mapping[str, int]) -> list[list[str]]:
    """Rows of cells: for each label how many cases have it, and what of it stays annotated."""
    rows = [["label", "cases", "instances kept", "of", "voxels kept", "of"]]
    chosen = [(name, {value}) for name, value in labels.items()]
    for name, values in [*chosen, *([("all", set(labels.values()))] if len(labels) > 1 else [])]:
        members = [instance for instance in simulation.instances if instance.label in values]
        kept = [instance for instance in members if instance in simulation.kept]
        cases = len({instance.case for instance in members})
        voxels = [sum(instance.voxels for instance in part) for part in (kept, members)]
        rows.append([name, *map(str, (cases, len(kept), len(members), *voxels))])
    return rows


def add_scribbles_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Leave only strokes annotated. Example: nnunet_ext simulate scribbles 4 -o Dataset714_Scribbles --slices 0.5"
    )
    add_common_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--slices",
        type=share,
        default=1.0,
        metavar="SHARE",
        help="share of the slices that are drawn in, up to 1, evenly spread (default: %(default)s)",
    )
    which.add_argument("--num-slices", type=positive, metavar="N", help="number of slices that are drawn in, instead")
    parser.add_argument(
        "--axis",
        choices=("x", "y", "z"),
        help="axis of the file that the slices are across (default: that of the largest spacing)",
    )
    parser.add_argument(
        "--length",
        dest="interior",
        type=share,
        default=0.8,
        metavar="SHARE",
        help="share of the skeleton that the interior stroke follows, up to 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--boundary",
        type=share_or_none,
        default=0.7,
        metavar="SHARE",
        help="share of the line inside the boundary that the second stroke follows; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--thickness",
        type=positive,
        default=1,
        metavar="N",
        help="thickness of strokes in voxels (default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=not_negative_number,
        default=0.2,
        metavar="SD",
        help="standard deviation of what each stroke is off along each axis, in voxels (default: %(default)s)",
    )
    parser.add_argument(
        "--components",
        type=share_or_none,
        default=0.1,
        metavar="SHARE",
        help="size, as a share of a class's largest part in a slice, from which its other parts have strokes, too; 0 "
        "for all (default: %(default)s)",
    )
    parser.set_defaults(simulate=draw_scribbles)


def draw_scribbles(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.simulate.scribble_annotation import simulate_scribbles
    from nnunet_ext.preprocessing.simulate.scribble_statistics import scribble_table
    from nnunet_ext.preprocessing.simulate.scribbles import Strokes

    source = read_raw_dataset(args.source)
    strokes = Strokes(**{field.name: getattr(args, field.name) for field in fields(Strokes)})
    annotation = simulate_scribbles(source, args.output, strokes, axis=args.axis, seed=args.seed, force=args.force)

    print(f"Wrote {args.output} from {source.folder.name}; {annotation.ignore} is the ignore label.\n")
    print(aligned(scribble_table(list(annotation.counts.values()))))
    print("\nShares are of a label's own voxels in a case; agreement is with the dense labels.")
    if annotation.without_foreground:
        print(f"\nWarning: {annotation.without_foreground} of {len(annotation.counts)} cases have background alone.")
    configuration = "2d" if annotation.flat else "3d_fullres"
    print(next_steps(args.output, "nnUNetTrainerTDNet", configuration=configuration))
    return 0
