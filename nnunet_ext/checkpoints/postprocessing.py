"""nnU-Net's postprocessing.pkl with the text beside it, which alone is read, as a pickle may run any code."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json, written_whole

TEXT, PICKLE = "postprocessing.json", "postprocessing.pkl"
FUNCTION = remove_all_but_largest_component_from_segmentation  # nnU-Net has no other
ARGUMENTS = {"labels_or_regions", "background_label"}


def copy_postprocessing(source: Path, target: Path) -> None:
    """Write postprocessing.json and .pkl of a folder into another; the source's pickle is not read.

    Raises:
        UserError: if it names a function or arguments that nnU-Net does not have.
    """
    content = read_json(source / TEXT)
    try:
        functions = [{FUNCTION.__name__: FUNCTION}[name] for name in content["postprocessing_fns"]]
        kwargs = [_kwargs(one) for one in content["postprocessing_kwargs"]]
        if len(functions) != len(kwargs):
            raise ValueError(f"{len(functions)} functions have {len(kwargs)} sets of arguments")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{source / TEXT} is not as nnU-Net writes it ({type(error).__name__}: {error}). Expected: the lists "
            f"postprocessing_fns, with {FUNCTION.__name__} alone, and postprocessing_kwargs. Remove the folder to go "
            "without postprocessing."
        ) from None
    _write(target, content, kwargs)


def write(folder: Path, kept: Iterable[list[int | tuple[int, ...]]]) -> None:
    """Write both files into a folder: of each list of labels or regions, the largest component stays."""
    kwargs = [{"labels_or_regions": piece} for piece in kept]
    names = [FUNCTION.__name__] * len(kwargs)
    _write(folder, {"postprocessing_fns": names, "postprocessing_kwargs": kwargs}, kwargs)


def remove(folder: Path) -> None:
    """Remove both files, if they are there."""
    for name in (TEXT, PICKLE):
        (folder / name).unlink(missing_ok=True)


def _write(folder: Path, content: Mapping[str, Any], kwargs: Sequence[Mapping[str, Any]]) -> None:
    write_json(folder / TEXT, content)
    with written_whole(folder / PICKLE) as temporary:
        temporary.write_bytes(pickle.dumps(([FUNCTION] * len(kwargs), list(kwargs))))


def _kwargs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a function as before they became JSON, which has lists for tuples."""
    if unknown := set(given) - ARGUMENTS:
        raise ValueError(f"unknown argument {sorted(unknown)[0]!r}")
    # a list of labels and a region of them are kept by the same mask, so flat lists need no telling apart
    labels = given["labels_or_regions"]
    several = (
        [tuple(map(int, one)) if isinstance(one, list) else int(one) for one in labels]
        if isinstance(labels, list)
        else int(labels)
    )
    return {"labels_or_regions": several} | {key: int(given[key]) for key in given if key == "background_label"}
