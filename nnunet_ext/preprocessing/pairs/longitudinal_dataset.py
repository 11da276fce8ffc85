"""Raw datasets of current and prior scans, and folders of such images for prediction."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, size_and_time, write_json
from nnunet_ext.folders import folder_written_whole
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.pairing import MATCHED, PAIRING, prepared
from nnunet_ext.formats.splits import Fold
from nnunet_ext.messages import some
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.plans.channel_roles import LONGITUDINAL, roles_of_dataset
from nnunet_ext.preprocessing.pairs.images import write_image
from nnunet_ext.preprocessing.pairs.paired_case import IfDiverged, PairedCase, Pairing, make_case
from nnunet_ext.preprocessing.pairs.pairing import Pair, patients_of
from nnunet_ext.preprocessing.raw.new_dataset import CaseProgress, new_dataset
from nnunet_ext.preprocessing.raw.patients import PAIRS as RECORD
from nnunet_ext.preprocessing.raw.splits import cross_validation
from nnunet_ext.version import __version__

MADE_BY = "pair"

PICTURES = "pictures"
ENDING = ".nii.gz"


class Diverged(UserError):
    """Some priors could not be brought onto their current scans, and nobody has said what to make of that."""


@dataclass(frozen=True)
class PreparedPairs:
    """What was made."""

    records: Mapping[str, Mapping[str, Any]]  # what was done, by the name of the case
    folds: Sequence[Fold]  # of the dataset; none in prediction
    seconds: float  # how long this run took


def make_longitudinal_dataset(
    pairs: Sequence[Pair], name: str, pairing: Pairing, *, if_diverged: IfDiverged, force: bool
) -> PreparedPairs:
    """Write a raw dataset of pairs that have current labels, with folds of whole patients.

    What an interrupted run has finished is there again the next time, if the pairing is the same; so is it when the run
    stops at priors whose registration diverged: `Diverged` is raised after all cases if `if_diverged` is ``stop``. See
    `make_case` for `if_diverged`, and `new_dataset` for `name` and `force`.
    """
    start = time.monotonic()
    request = {"version": __version__, **asdict(pairing)}
    with new_dataset(name, force=force, made_from=_inputs(pairs, pairing), request=request) as folder:
        images, labels = folder / "imagesTr", folder / "labelsTr"
        records = _write_cases(pairs, folder, images, pairing, labels=labels, if_diverged=if_diverged)
        _remove_others(folder, records, channels=len(pairing.channel_names))
        if folds := cross_validation(patients_of(pairs)):
            write_json(folder / SPLITS, folds)
        write_json(folder / "dataset.json", description_of(name, pairing, cases=len(pairs)))
    return PreparedPairs(records, folds, time.monotonic() - start)


def make_prediction_images(
    pairs: Sequence[Pair], folder: str | Path, pairing: Pairing, *, if_diverged: IfDiverged, force: bool
) -> PreparedPairs:
    """Write the channels of pairs into a folder for ``nnUNetv2_predict -i``; an interrupted run leaves nothing."""
    start = time.monotonic()
    check_apart(Path(folder), _inputs(pairs, pairing))
    with folder_written_whole(Path(folder), force=force) as unfinished:
        records = _write_cases(pairs, unfinished, unfinished, pairing, labels=None, if_diverged=if_diverged)
    return PreparedPairs(records, [], time.monotonic() - start)


def description_of(name: str, pairing: Pairing, *, cases: int) -> dict[str, Any]:
    """The dataset.json of a dataset of pairs."""
    repeated = ("modality", "registration", "crop_to_body", MATCHED)
    repeat = {"labels": dict(pairing.labels), **{key: getattr(pairing, key) for key in repeated}}
    pairs = {LONGITUDINAL: pairing.roles, PAIRING: repeat}
    return {
        "channel_names": {str(number): channel for number, channel in enumerate(pairing.channel_names)},
        "labels": {"background": 0, **pairing.labels},
        "numTraining": cases,
        "file_ending": ENDING,
        "name": name,
        KEY: {"made_by": MADE_BY, "version": __version__, **pairs},
    }


def pairing_of(description: Mapping[str, Any], *, where: Path) -> Pairing:
    """What was made of a dataset's or model's pairs, by its dataset.json; a UserError if ``pair`` did not write it."""
    about = description.get(KEY, {})
    if not isinstance(about, Mapping) or about.get("made_by") != MADE_BY or not isinstance(about.get(PAIRING), dict):
        raise UserError(
            f"{where} is not of a dataset that `nnunet_ext pair` made, so that it does not say how its pairs were "
            "prepared. Name such a dataset, or the folder of a model that was trained on one."
        )
    roles = roles_of_dataset(description)
    # those of the prior scan; the dataset's own may have become regions since
    repeat = prepared(about[PAIRING], where=where).model_dump()
    own = repeat.pop("labels")
    labels = {str(name): value for name, value in (own or description["labels"]).items() if name != "background"}
    if regions := [name for name, value in labels.items() if not isinstance(value, int)]:
        raise UserError(
            f"{where} has the regions {some(regions)} and does not say what the labels of the prior scan were. Add "
            f'"labels": {{"NAME": VALUE}} to "{KEY}": "{PAIRING}" there, as they were when `nnunet_ext pair` made it.'
        )
    return Pairing(labels, prior_image=bool(roles.prior_image), prior_labels=bool(roles.prior_labels), **repeat)


def _inputs(pairs: Sequence[Pair], pairing: Pairing) -> list[Path]:
    """The files that are read, none of which may lie in what `force` replaces."""
    matched = [] if pairing.match_histogram is None else [Path(pairing.match_histogram)]
    return [*(file for pair in pairs for file in pair.files.values()), *matched]


def _write_cases(
    pairs: Sequence[Pair], folder: Path, images: Path, pairing: Pairing, *, labels: Path | None, if_diverged: IfDiverged
) -> dict[str, Mapping[str, Any]]:
    """Write the cases that an interrupted run has not, pictures, and the record of what was done, which is returned."""
    for part in filter(None, (images, labels)):
        part.mkdir(exist_ok=True)
    progress = CaseProgress(folder)
    records: dict[str, Mapping[str, Any]] = {}
    diverged: dict[str, str] = {}
    for pair in tqdm(pairs, desc="Pairing", unit="case", disable=None):
        files = {name: [str(file.resolve()), *size_and_time(file)] for name, file in pair.files.items()}
        state = {"patient": pair.patient, **files}
        before = progress.result(pair.case, state)
        if before and before.get("if_diverged", if_diverged) == if_diverged:
            records[pair.case] = before
            continue
        started = time.monotonic()
        case = make_case(pair, pairing, if_diverged=if_diverged)
        picture = _picture(case, folder / PICTURES / f"{pair.case}.png")
        if case.problem:
            diverged[pair.case] = case.problem
            continue
        for number, channel in enumerate(case.channels):
            write_image(channel, images / f"{pair.case}_{number:04d}{ENDING}")
        if labels is not None and case.label is not None:
            write_image(case.label, labels / f"{pair.case}{ENDING}")
        records[pair.case] = {**case.record, **picture, "seconds": round(time.monotonic() - started, 2)}
        progress.keep(pair.case, state, records[pair.case])
    if diverged:
        raise Diverged(_told(diverged, total=len(pairs), kept=folder if labels is not None else None))
    progress.close()
    about = {"made_by": MADE_BY, "version": __version__, **asdict(pairing), "if_diverged": if_diverged}
    write_json(folder / RECORD, {**about, "cases": records})
    return records


def _remove_others(folder: Path, records: Mapping[str, Mapping[str, Any]], *, channels: int) -> None:
    """Remove files of cases that an interrupted run had and that are no longer asked for."""
    expected = {
        "imagesTr": {f"{case}_{number:04d}{ENDING}" for case in records for number in range(channels)},
        "labelsTr": {f"{case}{ENDING}" for case in records},
        PICTURES: {f"{case}.png" for case, record in records.items() if "picture" in record},
    }
    for part, names in expected.items():
        for file in [file for file in (folder / part).glob("*") if file.name not in names]:
            file.unlink()


def _picture(case: PairedCase, file: Path) -> dict[str, str]:
    """Draw how well a prior was registered, if it was; what the record says of that."""
    if case.views is None or case.registration is None:
        return {}
    from nnunet_ext.preprocessing.pairs.registration_pictures import registration_picture  # matplotlib takes a while

    file.parent.mkdir(exist_ok=True)
    registration_picture(*case.views, file, case.registration)
    return {"picture": f"{PICTURES}/{file.name}"}


def _told(diverged: Mapping[str, str], *, total: int, kept: Path | None) -> str:
    """What to say of registrations that diverged."""
    cases = "\n".join(f"  {case}: {problem}" for case, problem in diverged.items())
    done = (
        f"Nothing is lost: the other cases are kept in {kept}, where there are pictures too, and the same command goes "
        "on from there."
    )
    done = done if kept else "Nothing was written."
    return (
        f"{len(diverged)} of {total} priors could not be brought onto their current scans:\n{cases}\n{done} Look at "
        "these cases, then fix them or leave them out of the table, choose another --registration, or add one of\n"
        "  --if-diverged unregistered    to leave such a prior where its header has it\n"
        "  --if-diverged without-prior   to treat such a case as one that has no prior"
    )
