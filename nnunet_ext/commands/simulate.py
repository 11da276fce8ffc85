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
stroke there, and every class of a case in at least one slice: if need be, another slice is drawn in. Of the separate
parts of a class the largest has strokes, and so have those that are not much smaller. A case's strokes depend on its
name, the seed and its labels alone. labelsTr_dense keeps the dense labels, scribbles.json what was drawn, and
splits_final.json the source's folds.

``labels`` leaves only some labels of each case and turns the others into background, as if datasets with other labels
had been merged. --keep N keeps N labels of each case, every label equally often; --sources names the labels of each
pretended source, to which cases are dealt out. dataset.json lists what each case was annotated for, labelsTr_dense
keeps the complete labels, labels.json has what was removed, and splits_final.json the source's folds.

``noise`` makes labels wrong: each label of each case with the probability --rate, by one of the --kinds. The boundary
moves by --size mm outwards (dilation) or inwards (erosion), the whole label moves by --size mm in a random direction
(shift), or its voxels get another label (swap). Sizes follow the spacing: where slices are farther apart than --size,
the error stays within the slices. What a label gains it takes from its neighbours; what it leaves goes to the nearest
other label. A case's errors depend on its name, the seed and its labels alone. labelsTr_dense keeps the right labels,
noise.json what was changed, and splits_final.json the source's folds. Example:

    nnunet_ext simulate instances 702 -o Dataset712_Lesions30 --keep 0.3
    nnunet_ext simulate instances 702 -o Dataset713_Largest --keep 0.5 --order largest --scope dataset
    nnunet_ext simulate scribbles 4 -o Dataset714_Scribbles
    nnunet_ext simulate scribbles 4 -o Dataset715_Few --slices 0.2 --length 0.4 --noise 1 --axis z
    nnunet_ext simulate labels 4 -o Dataset716_OneLabel --keep 1
    nnunet_ext simulate labels 4 -o Dataset717_Sources --sources Anterior Anterior,Posterior --group "case_[0-9]+"
    nnunet_ext simulate noise 4 -o Dataset718_Noise --rate 0.4
    nnunet_ext simulate noise 4 -o Dataset719_Swapped --rate 0.2 --kinds swap
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from nnunet_ext import arguments
from nnunet_ext.arguments import fraction, not_negative, not_negative_number, positive, positive_number, share
from nnunet_ext.messages import aligned, counted, some

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.simulate.partial_annotation import PartialAnnotation

STROKES = (
    ("interior", share, 0.8, "SHARE", "share of the skeleton that the interior stroke follows, up to 1"),
    ("boundary", fraction, 0.7, "SHARE", "share of the line inside the boundary to draw on, 0 for no such stroke"),
    ("thickness", positive, 1, "N", "thickness of strokes in voxels"),
    ("noise", not_negative_number, 0.2, "SD", "standard deviation of a stroke's shift along each axis, in voxels"),
    ("components", fraction, 0.1, "SHARE", "smallest part of a class with strokes, as a share of its largest"),
)
"""The settings of strokes that are options of the same name, but for ``--length``: type, default, metavar, help."""

NOISE = ("dilation", "erosion", "shift", "swap")
"""The kinds of `nnunet_ext.preprocessing.simulate.label_noise`, which imports scipy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    instances = kinds.add_parser("instances", help="only some instances stay annotated")
    example = "nnunet_ext simulate instances 702 -o Dataset712_Lesions30 --keep 0.3"
    instances.description = f"Leave only some instances annotated. Example: {example}"
    scribbles = kinds.add_parser("scribbles", help="only strokes stay annotated")
    example = "nnunet_ext simulate scribbles 4 -o Dataset714_Scribbles --slices 0.5"
    scribbles.description = f"Leave only strokes annotated. Example: {example}"
    labels = kinds.add_parser("labels", help="only some labels of each case stay annotated")
    example = "nnunet_ext simulate labels 4 -o Dataset716_OneLabel --keep 1"
    labels.description = f"Leave only some labels of each case. Example: {example}"
    noise = kinds.add_parser("noise", help="some labels of each case become wrong")
    example = "nnunet_ext simulate noise 4 -o Dataset718_Noise --rate 0.4"
    noise.description = f"Make some labels of each case wrong. Example: {example}"
    pairs = (
        (instances, simulate_instances),
        (scribbles, draw_scribbles),
        (labels, remove_labels),
        (noise, make_labels_wrong),
    )
    for kind, simulate in pairs:
        kind.add_argument("source", metavar="SOURCE", help="id or name of the raw dataset with dense labels")
        arguments.add_new_dataset_options(kind)
        seed = "random seed (default: %(default)s)"
        kind.add_argument("--seed", type=not_negative, default=0, metavar="S", help=seed)
        kind.set_defaults(simulate=simulate)
    add_instances_arguments(instances)
    add_scribbles_arguments(scribbles)
    which = labels.add_mutually_exclusive_group(required=True)
    which.add_argument("--keep", type=positive, metavar="N", help="number of labels that each case keeps")
    sources = "labels of each pretended source, separated by commas"
    which.add_argument("--sources", nargs="+", default=[], metavar="LABEL,LABEL", help=sources)
    group = "pattern in a case's name whose first group is the patient, whose cases keep the same labels"
    labels.add_argument("--group", metavar="REGEX", help=group)
    rate = "probability that a label of a case becomes wrong, up to 1"
    noise.add_argument("--rate", type=share, required=True, metavar="P", help=rate)
    errors = "kinds of errors, one of which is drawn for each wrong label (default: dilation erosion shift)"
    noise.add_argument("--kinds", nargs="+", choices=NOISE, default=list(NOISE[:-1]), help=errors)
    size = "distance in mm by which a boundary or a label moves (default: %(default)s)"
    noise.add_argument("--size", type=positive_number, default=3.0, metavar="MM", help=size)


def run(args: argparse.Namespace) -> int:
    return args.simulate(args)


def add_instances_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    keep = "share of the instances to keep, up to 1; in every case one stays, with 0 only that one"
    add("--keep", type=fraction, required=True, metavar="SHARE", help=keep)
    where = "where the share holds: in each case, or over all of them (default: %(default)s)"
    add("--scope", choices=("case", "dataset"), default="case", help=where)
    order = "which instances are kept first (default: %(default)s)"
    add("--order", choices=("random", "largest", "smallest"), default="random", help=order)
    maps = "folder of instance maps in SOURCE, or `components` for the connected components of each label (default: "
    add("--instances", metavar="FOLDER", help=f"{maps}instancesTr if it is there)")


def add_scribbles_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    drawn = "share of the slices that are drawn in, up to 1, evenly spread (default: %(default)s)"
    which.add_argument("--slices", type=share, default=1.0, metavar="SHARE", help=drawn)
    which.add_argument("--num-slices", type=positive, metavar="N", help="number of slices that are drawn in, instead")
    across = "axis of the file that the slices are across (default: that of the largest spacing)"
    parser.add_argument("--axis", choices=("x", "y", "z"), help=across)
    for name, kind, default, metavar, text in STROKES:
        option = "--length" if name == "interior" else f"--{name}"
        text += " (default: %(default)s)"
        parser.add_argument(option, dest=name, type=kind, default=default, metavar=metavar, help=text)


def print_outcome(
    args: argparse.Namespace,
    wrote: str,
    table: Sequence[Sequence[str]],
    notes: Sequence[str],
    *,
    flat: bool,
    trainer: str,
) -> int:
    """Show what was written, a table of what is annotated, notes, and the commands that follow."""
    from nnunet_ext.preprocessing.raw.next_steps import next_steps

    print(f"Wrote {args.output} from {wrote}.\n\n{aligned(table)}")
    print(*(f"\n{note}" for note in notes), sep="\n", end="\n" * bool(notes))
    print(next_steps(args.output, trainer, configuration="2d" if flat else "3d_fullres"))
    return 0


def simulate_instances(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.instances import COMPONENTS
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.simulate import partial_annotation as partial

    source = read_raw_dataset(args.source)
    origin = partial.origin_of_instances(source, args.instances)
    selection = partial.Selection(args.keep, args.scope, args.order, args.seed)
    done = partial.simulate_partial_annotation(source, args.output, selection, origin=origin, force=args.force)

    kind = "the connected components of each label" if origin == COMPONENTS else f"those of {origin}"
    notes = []
    if done.without_foreground:
        notes.append(f"Warning: {done.without_foreground} of {done.cases} cases have no instance at all.")
    if done.unassigned:
        notes.append(
            f"In {done.unassigned} of {done.cases} cases some foreground belongs to no instance; it stays annotated."
        )
    wrote = f"{source.folder.name}; instances are {kind}"
    table = instance_table(done, source.foreground_values())
    return print_outcome(args, wrote, table, notes, flat=done.flat, trainer="nnUNetTrainerDBDMP")


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


def draw_scribbles(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.simulate.scribble_annotation import simulate_scribbles
    from nnunet_ext.preprocessing.simulate.scribble_statistics import scribble_table
    from nnunet_ext.preprocessing.simulate.scribbles import Strokes

    source = read_raw_dataset(args.source)
    strokes = Strokes(**{field.name: getattr(args, field.name) for field in fields(Strokes)})
    done = simulate_scribbles(source, args.output, strokes, axis=args.axis, seed=args.seed, force=args.force)

    notes = ["Shares are of a label's own voxels in a case; agreement is with the dense labels."]
    if done.without_foreground:
        notes.append(f"Warning: {done.without_foreground} of {len(done.counts)} cases have background alone.")
    wrote = f"{source.folder.name}; {done.ignore} is the ignore label"
    table = scribble_table(list(done.counts.values()))
    return print_outcome(args, wrote, table, notes, flat=done.flat, trainer="nnUNetTrainerTDNet")


def remove_labels(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.raw.splits import group_cases
    from nnunet_ext.preprocessing.simulate.missing_labels import simulate_missing_labels

    source = read_raw_dataset(args.source)
    groups, sources = group_cases(list(source.cases), args.group), [one.split(",") for one in args.sources]
    done = simulate_missing_labels(
        source, args.output, groups=groups, keep=args.keep, sources=sources, seed=args.seed, force=args.force
    )
    rows = [["label", "annotated cases", "of", "voxels kept", "of"]]
    for label, (before, after) in done.voxels.items():
        annotated = sum(label in kept for kept in done.lists.values())
        rows.append([label, *map(str, (annotated, len(done.lists), after, before))])
    wrote = f"{source.folder.name}; {counted(len(set(map(tuple, done.lists.values()))), 'pretended source')}"
    gone = [label for label, (before, after) in done.voxels.items() if before and not after]
    notes = [f"Warning: no case that was to keep {some(gone)} has it. Take another --seed."] if gone else []
    return print_outcome(args, wrote, rows, notes, flat=done.flat, trainer="nnUNetTrainerPartialLabels")


def make_labels_wrong(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.simulate.label_noise import simulate_label_noise

    source = read_raw_dataset(args.source)
    options = {name: getattr(args, name) for name in ("rate", "size", "seed", "force")}
    done = simulate_label_noise(source, args.output, kinds=list(dict.fromkeys(args.kinds)), **options)
    rows = [["label", "cases in which it is wrong", "of", "voxels changed", "of", "share"]]
    for label, (changed, voxels) in done.voxels.items():
        cases = (done.wrong[label], done.present[label]) if label in done.wrong else ("", "")
        rows.append([label, *map(str, (*cases, changed, voxels)), f"{changed / max(1, voxels):.1%}"])
    notes = ["Shares are of the voxels that have the label before or after; of all: of the foreground."]
    if not any(done.present.values()):
        notes.append(f"Warning: no case of {source.folder.name} has a label that could become wrong.")
    elif not done.voxels["all"][0]:
        notes.append("Warning: no label became wrong. Take a higher --rate or another --seed.")
    return print_outcome(args, source.folder.name, rows, notes, flat=done.flat, trainer="nnUNetTrainerADELE")
