"""Which cases of two sets are the same scan, whatever they are called."""

from collections.abc import Mapping
from pathlib import Path

from nnunet_ext.errors import UserError
from nnunet_ext.files import sha256
from nnunet_ext.preprocessing.raw.raw_dataset import Case


def same_images(ours: Mapping[str, Case], theirs: Mapping[str, Case]) -> dict[str, str]:
    """The cases whose first image has the content of one of the others.

    Args:
        ours: cases by name.
        theirs: others by name.

    Returns:
        For each of ours that is among theirs, what it is called there.

    Raises:
        UserError: if a first image does not exist.
    """
    sizes = [{_image(case).stat().st_size for case in cases.values()} for cases in (ours, theirs)]
    alike = [
        {name: case for name, case in cases.items() if _image(case).stat().st_size in set.intersection(*sizes)}
        for cases in (ours, theirs)
    ]
    known = {sha256(_image(case)): name for name, case in alike[1].items()}
    found = {name: sha256(_image(case)) for name, case in alike[0].items()}
    return {name: known[content] for name, content in found.items() if content in known}


def _image(case: Case) -> Path:
    if not case.images[0].is_file():
        raise UserError(f"{case.images[0]} does not exist.")
    return case.images[0]
