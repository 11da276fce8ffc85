"""What becomes of raw datasets with labels of their own when they are merged: labels, channels and cases by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from pydantic import RootModel, StrictStr

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, sha256
from nnunet_ext.formats.annotated_labels import AnnotatedLabels
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.names import check_names, composed, file_key
from nnunet_ext.formats.typed import validated
from nnunet_ext.messages import some
from nnunet_ext.preprocessing.raw.patients import groups_of_cases
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset
from nnunet_ext.preprocessing.raw.unlabelled import READER, is_unlabelled

RESERVED = ("background", "ignore")

Renames = Mapping[str, Mapping[str, str]]
"""By source, new names of labels by their names in it."""


class Aliases(RootModel[dict[StrictStr, list[StrictStr]]]):
    """A table of labels: each name with the other names that it has in the sources."""


@dataclass(frozen=True)
class MergedSource:
    """A dataset that is merged."""

    dataset: RawDataset
    labels: Mapping[str, str]  # the merged dataset's names by its own
    absent: frozenset[str]  # names in the merged dataset of what none of its cases has
    names: Mapping[str, str]  # the merged dataset's names of cases by its own
    patients: Mapping[str, Sequence[str]]  # the merged dataset's names of cases by patient
    channels: Sequence[int]  # places of the merged dataset's channels

    @cached_property
    def lists(self) -> AnnotatedLabels:
        """What the dataset itself says of its cases."""
        return self.dataset.annotated_labels()

    def annotated(self, case: str) -> set[str]:
        """What a case, by its own name, was annotated for."""
        missing = {new for own, new in self.labels.items() if not self.lists.is_annotated(case, own)}
        return (set(self.labels.values()) | self.absent) - missing


@dataclass(frozen=True)
class Merge:
    """What becomes of the sources."""

    sources: Sequence[MergedSource]
    labels: Mapping[str, int]  # with background and ignore
    channels: Sequence[str]

    @property
    def foreground(self) -> list[str]:
        return [name for name in self.labels if name not in RESERVED]

    def lists(self, source: MergedSource) -> dict[str, list[str]]:
        """What the cases of a source were annotated for, by their new names."""
        known = {new: source.annotated(own) for own, new in source.names.items()}
        return {case: [label for label in self.foreground if label in labels] for case, labels in known.items()}


def read_aliases(file: Path) -> dict[str, str]:
    """New names by old ones from a JSON file, {"NEW": ["OLD", ...]}; a UserError if it is wrong."""
    table = validated(Aliases, read_json(file), where=file, what="a table of labels").root
    aliases: dict[str, str] = {}
    for new, others in table.items():
        for old in others:
            if aliases.setdefault(old, new) != new:
                raise UserError(
                    f"{file} has {old!r} under {aliases[old]!r} and {new!r}. Each name must have one meaning."
                )
    return aliases


def plan_merge(
    datasets: Sequence[RawDataset],
    *,
    aliases: Mapping[str, str],
    renames: Renames,
    only_annotated: Mapping[str, Sequence[str]],
    channels: Sequence[str],
    group: str | None,
    prefix: bool,
) -> Merge:
    """See that datasets go together, and what their labels, channels and cases are called then.

    Args:
        datasets: at least two.
        aliases: new names of labels by old ones, in all sources.
        renames: the same in one source, by the name of its folder; they come before the aliases.
        only_annotated: by source, labels that none of its cases has beside what is annotated; empty for all others.
        channels: names of those to take; empty for all, which must then be the same in each source.
        group: pattern of the patient in a case's name, as in `groups_of_cases`.
        prefix: put the source's number before the names of cases and patients.

    Raises:
        UserError: naming what does not go together, and how to tell what is meant.
    """
    folders = [dataset.folder.name for dataset in datasets]
    if len(set(folders)) < max(2, len(folders)):
        raise UserError(f"Two datasets or more are merged, each once; found: {', '.join(folders)}. Name each once.")
    _require_same(datasets, "file_ending", "Convert the images of one.")
    _require_same(datasets, READER, "Set it alike in each dataset.json.")
    names = [_new_names(one, aliases, renames.get(one.folder.name, {})) for one in datasets]
    merged = list(dict.fromkeys(chain.from_iterable(one.values() for one in names)))
    _refuse_spellings(merged, names, folders)
    known = {label for one in datasets for label in one.foreground_values()}
    if unused := sorted(set(aliases) - known):
        raise UserError(f"No dataset has the labels {some(unused)} of the table of aliases. Remove them from it.")
    taken = list(channels) or channel_names(datasets[0].description)
    sources = []
    for one, labels in zip(datasets, names):
        start = f"D{one.folder.name[len('Dataset') :][:3]}_" if prefix else ""
        groups = groups_of_cases(list(one.cases), group, one.folder)
        sources.append(
            MergedSource(
                one,
                labels,
                _absent(one.folder.name, only_annotated, merged, labels),
                {case: start + case for case in one.cases},
                {start + patient: [start + case for case in cases] for patient, cases in groups.items()},
                _places(one, taken, is_chosen=bool(channels)),
            )
        )
    check_names(chain.from_iterable(source.names.values() for source in sources), what="case", where="merge")
    _refuse_twice(sources, "case", [list(source.names.values()) for source in sources])
    _refuse_twice(sources, "patient", [list(source.patients) for source in sources])
    _refuse_same_images(sources)
    values = {"background": 0, **{label: value for value, label in enumerate(merged, 1)}}
    if any(one.ignore_label is not None for one in datasets):
        values["ignore"] = len(values)
    return Merge(sources, values, taken)


def _require_same(datasets: Sequence[RawDataset], key: str, fix: str) -> None:
    found = {dataset.folder.name: dataset.description.get(key) for dataset in datasets}
    if len(set(found.values())) > 1:
        shown = "; ".join(f"{folder}: {value}" for folder, value in found.items())
        raise UserError(f"The datasets differ in {key} ({shown}), and one dataset has one. {fix}")


def _new_names(dataset: RawDataset, aliases: Mapping[str, str], renames: Mapping[str, str]) -> dict[str, str]:
    """The merged dataset's name of each label."""
    own = dataset.foreground_values()
    if is_unlabelled(dataset):
        own = {}  # placeholders
    if unknown := sorted(set(renames) - set(own)):
        missing = some([*map(repr, unknown)])
        raise UserError(f"{dataset.folder.name} has no label {missing} to rename. It has: {', '.join(own)}.")
    names = {label: renames.get(label, aliases.get(label, label)) for label in own}
    if wrong := [old for old, new in names.items() if new in RESERVED or not new.strip()]:
        raise UserError(
            f"{some(wrong)} in {dataset.folder.name} cannot be named {names[wrong[0]]!r}. Choose another name."
        )
    return names


def _refuse_spellings(merged: Sequence[str], names: Sequence[Mapping[str, str]], folders: Sequence[str]) -> None:
    """Raise a UserError if names differ only in case, blanks and punctuation."""
    spellings: dict[str, list[str]] = {}
    for label in merged:
        spellings.setdefault("".join(filter(str.isalnum, label.casefold())), []).append(label)
    for labels in spellings.values():
        if len(labels) > 1:
            where = [next(f for f, one in zip(folders, names) if label in one.values()) for label in labels]
            shown = ", ".join(f"{label!r} of {folder}" for label, folder in zip(labels, where))
            raise UserError(
                f"Are {shown} the same? If so: --rename {where[1]}:{labels[1]}={labels[0]}. If not, give one of them "
                "a name of its own in the same way."
            )


def _absent(
    folder: str, only_annotated: Mapping[str, Sequence[str]], merged: Sequence[str], own: Mapping[str, str]
) -> frozenset[str]:
    """Labels of other sources that none of a source's cases has."""
    if folder not in only_annotated:
        return frozenset()
    others = [label for label in merged if label not in own.values()]
    if wrong := sorted(set(only_annotated[folder]) - set(others)):
        raise UserError(
            f"--only-annotated {folder} names {some(wrong)}; labels of other datasets: {', '.join(others)}."
        )
    return frozenset(only_annotated[folder] or others)


def _places(dataset: RawDataset, channels: Sequence[str], *, is_chosen: bool) -> list[int]:
    """Where a dataset has the channels that are taken, by their names, which may differ in case."""
    own = [name.casefold() for name in channel_names(dataset.description)]
    wanted = [name.casefold() for name in channels]
    has_them = set(wanted) <= set(own) if is_chosen else sorted(wanted) == sorted(own)
    if not has_them or (len(set(own)) < len(own) and wanted != own):
        fix = "Every dataset must have them."
        if not is_chosen:
            fix = "Where they are the same under other names, write one name into channel_names of each dataset.json; "
            fix += "else name those to take with --channels, if each has them."
        raise UserError(
            f"{dataset.folder.name} has the channels {', '.join(channel_names(dataset.description))}; wanted are "
            f"{', '.join(channels)}. {fix}"
        )
    places = [own.index(name) for name in wanted] if len(set(own)) == len(own) else list(range(len(own)))
    if incomplete := [case for case, files in dataset.cases.items() if not files.has_channels(len(own))]:
        raise UserError(f"{incomplete[0]} of {dataset.folder.name} does not have {len(own)} channels.")
    in_one_file = [case for case, files in dataset.cases.items() if len(files.images) < len(own)]
    if in_one_file and places != list(range(len(own))):
        raise UserError(
            f"{in_one_file[0]} of {dataset.folder.name} has all channels in one file: they cannot be chosen."
        )
    return places


def _refuse_twice(sources: Sequence[MergedSource], what: str, names: Sequence[Sequence[str]]) -> None:
    """Raise a UserError if a case or patient is in two sources."""
    seen: dict[str, str] = {}
    for source, own in zip(sources, names):
        folder = source.dataset.folder.name
        # files are named by cases
        keys = {name: file_key(name) if what == "case" else composed(name) for name in own}
        if shared := sorted(name for name, key in keys.items() if key in seen):
            other, named = seen[keys[shared[0]]], f"the {what}{'s' * (len(shared) > 1)} {some(shared)}"
            raise UserError(
                f"{folder} and {other} both have {named}. If they are others, add --prefix. If they are the same, "
                "leave them out of one dataset: its folds would validate on what they train on."
            )
        seen |= dict.fromkeys(keys.values(), folder)


def _refuse_same_images(sources: Sequence[MergedSource]) -> None:
    """Raise a UserError if the first image of two sources' cases has the same content."""
    by_size: dict[int, dict[tuple[str, str], Path]] = {}
    for source in sources:
        for case, files in source.dataset.cases.items():
            if (image := files.images[0]).is_file():
                found = by_size.setdefault(image.stat().st_size, {})
                found[source.dataset.folder.name, case] = image
    for images in by_size.values():
        if len({folder for folder, _ in images}) < 2:
            continue
        seen: dict[str, tuple[str, str]] = {}
        for (folder, case), image in images.items():
            other = seen.setdefault(sha256(image), (folder, case))
            if other[0] != folder:
                raise UserError(
                    f"{case} of {folder} and {other[1]} of {other[0]} are the same image. A case can be in one source: "
                    "leave it out of one dataset. If each has labels that the other lacks, write them into one map."
                )
