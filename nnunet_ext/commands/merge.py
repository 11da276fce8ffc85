"""Merge raw datasets with different labels into one that says what each case was annotated for.

Labels of the same name are one label; --rename and --aliases tell which names mean the same, and which do not. Values
are numbered anew in new label files. dataset.json lists, for each case, the labels of its source: where the other
labels are is not known, and nnUNetTrainerPartialLabels learns from such cases. --only-annotated SOURCE says that it is
known: SOURCE's cases have no label but those that are annotated there. Sources may also be scribbles with their ignore
label, and what `nnunet_ext unlabelled` has written, whose cases are annotated for nothing.
nnUNetTrainerMixedSupervision learns from all of them, from cases without labels only with
partial_labels.entropy_weight. Where these are beside dense ones alone, `nnunet_ext advise` names what uses them.

Images stay where they are, with their orientation and spacing; --copy copies them. All sources need the same channels,
by name, in any order, and the same file ending. splits_final.json has folds of whole patients, each with a share of
each source; of datasets that `nnunet_ext pair` made the patients are known. A case or patient in two sources is
refused, also if two images are the same under different names.

The table of --aliases is JSON: {"left kidney": ["kidney_left", "LK"]}. Example:

    nnunet_ext merge 3 9 -o Dataset050_Abdomen --prefix --rename 9:Milz=spleen
    nnunet_ext merge 3 9 -o Dataset051_Copied --prefix --copy --aliases names.json --only-annotated 3:kidney
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.arguments import add_new_dataset_options
from nnunet_ext.errors import UserError
from nnunet_ext.messages import aligned, counted
from nnunet_ext.nnunet_folders import dataset_number, is_number

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.raw.merge_plan import Merge
    from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset


def rename(text: str) -> tuple[str, str, str]:
    """``SOURCE:OLD=NEW``."""
    source, colon, names = text.partition(":")
    old, equals, new = names.partition("=")
    if not (source and colon and old and equals and new):
        raise argparse.ArgumentTypeError(f"{text} is not SOURCE:OLD=NEW")
    return source, old, new


def source_and_labels(text: str) -> tuple[str, list[str]]:
    """``SOURCE`` or ``SOURCE:LABEL,LABEL``."""
    source, colon, labels = text.partition(":")
    if not source or (colon and not labels):
        raise argparse.ArgumentTypeError(f"{text} is neither SOURCE nor SOURCE:LABEL,LABEL")
    return source, labels.split(",") if labels else []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="DATASET", help="ids or names of the raw datasets")
    add_new_dataset_options(parser)
    add("--copy", action="store_true", help="copy the images (default: list them where they are)")
    add(
        "--rename",
        type=rename,
        nargs="+",
        default=[],
        metavar="SOURCE:OLD=NEW",
        help="name of a label of one source in the merged dataset",
    )
    add("--aliases", type=Path, metavar="FILE", help="table of names that mean the same label in every source")
    add(
        "--only-annotated",
        type=source_and_labels,
        nargs="+",
        default=[],
        metavar="SOURCE[:LABEL,LABEL]",
        help="source whose cases have nothing of these labels of other sources (default: of any), so that they count "
        "as annotated",
    )
    add("--channels", nargs="+", default=[], metavar="NAME", help="channels to take (default: all, the same in each)")
    add("--prefix", action="store_true", help="put the source's number before the names of cases and patients")
    add("--group", metavar="REGEX", help="pattern in a case's name whose first group is the patient")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw import merge_plan
    from nnunet_ext.preprocessing.raw.merging import merge_datasets
    from nnunet_ext.preprocessing.raw.next_steps import next_steps
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset

    datasets = {given: read_raw_dataset(given) for given in args.sources}
    renames: dict[str, dict[str, str]] = {}
    for given, old, new in args.rename:
        renames.setdefault(named(given, datasets), {})[old] = new
    merge = merge_plan.plan_merge(
        [datasets[given] for given in args.sources],
        aliases={} if args.aliases is None else merge_plan.read_aliases(args.aliases),
        renames=renames,
        only_annotated={named(given, datasets): labels for given, labels in args.only_annotated},
        channels=args.channels,
        group=args.group,
        prefix=args.prefix,
    )
    if args.group is None:
        tell_lost_folds(merge)
    flat = merge_datasets(merge, args.output, copy=args.copy, force=args.force)
    total = sum(len(source.names) for source in merge.sources)
    print(f"Wrote {args.output}: {counted(total, 'case')}, {', '.join(merge.channels)}.\n\n{aligned(table(merge))}")
    has_scribbles = any(source.lists.scribbled for source in merge.sources)
    annotated = {len(labels) for source in merge.sources for labels in merge.lists(source).values()}
    if 0 in annotated and not has_scribbles and annotated <= {0, len(merge.foreground)}:
        # nnUNetTrainerMixedSupervision leaves cases without labels out by default: it would be stock on dense ones
        print(f"\nNext:\n  nnunet_ext advise -d {dataset_number(args.output)}")
        return 0
    trainer = "nnUNetTrainerMixedSupervision" if has_scribbles or 0 in annotated else "nnUNetTrainerPartialLabels"
    print(next_steps(args.output, trainer, configuration="2d" if flat else "3d_fullres"))
    return 0


def named(given: str, datasets: Mapping[str, RawDataset]) -> str:
    """The folder of a source, by its id or name."""
    for asked, dataset in datasets.items():
        number = dataset_number(dataset.folder.name)
        if given in (asked, dataset.folder.name) or (is_number(given) and str(int(given)) == number):
            return dataset.folder.name
    raise UserError(f"{given} is none of the datasets that are merged: {', '.join(datasets)}.")


def tell_lost_folds(merge: Merge) -> None:
    """Say which sources have folds of their own, which may keep patients apart, where no pattern names the patients."""
    from nnunet_ext.formats.splits import read_splits
    from nnunet_ext.preprocessing.raw.patients import PAIRS, patients_of_cases
    from nnunet_ext.preprocessing.raw.splits import cross_validation, splits_files

    for source in merge.sources:
        cases, files = source.dataset.cases, splits_files(source.dataset.folder)[:1]
        if len(source.patients) < len(cases) or not files:
            continue
        with suppress(UserError):  # a file that is no split has no folds to lose
            if set(cases) <= set(patients_of_cases(source.dataset.folder / PAIRS)):
                continue
            if read_splits(files[0]) != cross_validation({case: [case] for case in cases}):
                print(
                    f"Note: {files[0]} has folds of its own, which are not kept. If they keep patients apart, name the "
                    "patients with --group.",
                    file=sys.stderr,
                )


def table(merge: Merge) -> Sequence[Sequence[str]]:
    """Rows of cells: the labels with their values, and for each source how many of its cases are annotated for them."""
    lists = [list(merge.lists(source).values()) for source in merge.sources]
    rows = [["annotated cases", "value", *(source.dataset.folder.name for source in merge.sources)]]
    rows.append(["all cases", "", *(str(len(of_source)) for of_source in lists)])
    for label in merge.foreground:
        counts = [sum(label in one for one in of_source) for of_source in lists]
        rows.append([label, str(merge.labels[label]), *(str(number) if number else "-" for number in counts)])
    return rows
