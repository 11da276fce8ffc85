"""Reading a checkpoint of nnU-Net without running any code that is in it."""

import os
import re
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_ext.checkpoints.claimed_sizes import check_claims
from nnunet_ext.checkpoints.loaded_content import check_loaded
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import some
from nnunet_ext.version import OLDEST_TORCH

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch before 1.6 begin; newer ones are zip archives."""

PREFIXES = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before the names of weights."""

MAPPINGS = ("settings", "source", "moved", "left_out", "known", "adapted_from", "exported_from")
"""Parts of what this package writes into a checkpoint that have keys of their own."""

MANY = 10
EXPECTED = "Expected: a checkpoint_final.pth or checkpoint_best.pth of nnU-Net v2."


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net v2 onto the CPU.

    Nothing that is pickled in the file is executed: beside tensors and plain data only numpy's numbers and arrays are
    accepted, which nnU-Net's logs hold.

    Returns:
        The checkpoint. The names in ``network_weights`` are free of the prefixes of DDP and torch.compile; tensors that
        are one in the file stay one.

    Raises:
        UserError: if there is no such file, or if it is damaged, no checkpoint of nnU-Net v2, or holds other than data.
    """
    file = Path(path)
    return checked_checkpoint(load_file(file), file)


def load_file(file: Path, *, is_mapped: bool = False) -> Any:
    """What a file of torch holds, on the CPU, without running code in it; a UserError as of `read_checkpoint`.

    With `is_mapped`, tensors are left in the file where the file system permits it: for what is beside them.
    """
    _require_checkpoint_file(file)
    return _load(file, is_mapped=is_mapped)


def checkpoint_in(path: Path) -> tuple[Path, Path | None]:
    """The checkpoint that a path stands for, and the model's folder it lies in, if there is one.

    A model's folder stands for the final checkpoint of its first fold; so does a folder with one model's folder in it.
    """
    if path.is_dir():
        models = [path] if _is_model_folder(path) else sorted(filter(_is_model_folder, path.iterdir()))
        if len(models) > 1:
            raise UserError(f"{path} holds several models: {some([one.name for one in models], MANY)}. Name one.")
        found = [file for model in models for file in sorted(model.glob("fold_*/checkpoint_final.pth"))]
        return (found[0], models[0]) if found else (path, None)
    folder = path.parent.parent
    return path, folder if _is_model_folder(folder) and path.parent.name.startswith("fold_") else None


def _is_model_folder(path: Path) -> bool:
    return (path / "plans.json").is_file() and (path / "dataset.json").is_file()


def checked_checkpoint(content: Any, file: Path) -> dict[str, Any]:
    """The content of a file, if it is a checkpoint of nnU-Net v2; see `read_checkpoint`."""
    if not isinstance(content, dict):
        raise UserError(f"{file} is no checkpoint of nnU-Net v2: it holds a {type(content).__name__}, no dictionary.")
    weights = content.get("network_weights")
    if not isinstance(weights, Mapping):
        raise UserError(_without_weights(file, content))
    if not weights or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()):
        raise UserError(f"{file} is no checkpoint of nnU-Net v2: its network_weights are not tensors by name.")
    rest = {key: value for key, value in content.items() if key != KEY}
    named = {without_prefixes(key): value for key, value in weights.items()}
    return {**rest, "network_weights": named, **_own_part(content.get(KEY), file)}


def _own_part(about: Any, file: Path) -> dict[str, Any]:
    """What this package has written into a checkpoint, without what is null; a UserError if it is no such thing."""
    if about is None:
        return {}
    kept = {key: value for key, value in about.items() if value is not None} if isinstance(about, Mapping) else about
    parts = {KEY: kept} | ({key: kept.get(key, {}) for key in MAPPINGS} if isinstance(kept, dict) else {})
    if wrong := [key for key, part in parts.items() if not isinstance(part, Mapping)]:
        raise UserError(
            f"{file} is not as nnunet_ext writes it: {', '.join(wrong)} must be a mapping. Copy it again from where it "
            f"was trained, or take the key {KEY!r} out."
        )
    return {KEY: kept}


def _require_checkpoint_file(file: Path) -> None:
    if not file.exists():
        raise UserError(f"{file} does not exist. A checkpoint is expected, e.g. fold_0/checkpoint_final.pth.")
    if file.is_dir():
        found = sorted(str(path.relative_to(file)) for pattern in ("*.pth", "*/*.pth") for path in file.glob(pattern))
        choice = f"Name one of the files in it: {some(found, MANY)}." if found else "It has no .pth files."
        raise UserError(f"{file} is a folder; a checkpoint file is needed. {choice}")
    try:
        with file.open("rb") as handle:
            start = handle.read(len(LEGACY_MAGIC))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None
    if not start:
        raise UserError(f"{file} is empty. Copy it again from where it was trained.")
    if start != LEGACY_MAGIC and not start.startswith(b"PK\x03\x04"):
        raise UserError(f"{file} is no checkpoint: torch has not written it. {EXPECTED}")
    if start.startswith(b"PK") and zipfile.is_zipfile(file):
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                is_checkpoint = any(name.endswith("data.pkl") for name in names)
                is_script = any(name.endswith("constants.pkl") for name in names)
        except Exception:  # what is damaged makes zipfile raise nearly anything; `check_claims` says what is wrong
            return
        if is_script:
            raise UserError(f"{file} is a compiled program (TorchScript), no checkpoint. {EXPECTED}")
        if not is_checkpoint:
            raise UserError(
                f"{file} is a zip archive, but no checkpoint. If it is an exported model, install it with "
                "nnUNetv2_install_pretrained_model_from_zip and name the checkpoint in the installed model's folder."
            )


def _load(file: Path, *, is_mapped: bool) -> Any:
    installed = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if installed < OLDEST_TORCH:
        needed = "Reading a checkpoint without running code in it needs torch >= 2.6"
        raise UserError(f"{needed}; torch {torch.__version__} is installed. Update torch.")
    check_claims(file)
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return check_loaded(load_on_cpu(file, weights_only=True, is_mapped=is_mapped), file)
    except UserError:
        raise
    except UnpicklingError as error:
        raise UserError(
            f"{file} holds {_refused(str(error))}, which is neither a tensor nor plain data, so it is not loaded: that "
            "could run code. If you trust its origin, take the data out once: "
            "checkpoint = torch.load(FILE, map_location='cpu', weights_only=False); keys = ('network_weights', "
            "'state_dict', 'init_args', 'trainer_name', 'nnssl_adaptation_plan', 'citations'); torch.save({key: "
            "checkpoint[key] for key in keys if key in checkpoint}, NEW_FILE). If NEW_FILE is refused as well, leave "
            "'init_args' out."
        ) from None
    except Exception as error:  # a damaged file makes torch raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} is damaged or cut off. Copy it again from where it was trained. ({reason})") from None


def load_on_cpu(file: str | os.PathLike[str], *, weights_only: bool, is_mapped: bool) -> Any:
    """torch's reading of a file; one that cannot be mapped into memory is read as a whole."""
    if is_mapped:
        # also raised where a file is damaged, which then raises it again
        with suppress(RuntimeError):
            return torch.load(file, map_location="cpu", mmap=True, weights_only=weights_only)
    return torch.load(file, map_location="cpu", weights_only=weights_only)


def _numpy_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What numpy's scalars and arrays of numbers are pickled with, under the names of numpy 1 and 2."""
    scalar = np.float32(0).__reduce__()[0]
    reconstruct = np.zeros(0).__reduce__()[0]
    assert callable(scalar)
    assert callable(reconstruct)
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [np.ndarray, np.dtype]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(scalar, f"{module}.scalar"), (reconstruct, f"{module}._reconstruct")]
    # arrays of objects stay out
    codes = ["?", *np.typecodes["AllInteger"], *np.typecodes["AllFloat"], "S", "U"]
    return allowed + list({type(np.dtype(code)) for code in codes})


def _refused(message: str) -> str:
    """What torch has refused, taken out of its error message."""
    for pattern in (r"GLOBAL (\S+)", r"got <class '([^']+)'>", r"unrecognized function (.+)"):
        found = re.search(pattern, message)
        if found:
            return found.group(1)
    return "something that torch does not name"


def _without_weights(file: Path, content: Mapping[Any, Any]) -> str:
    """Why a dictionary without ``network_weights`` is no checkpoint of nnU-Net v2, and what to do."""
    if {"state_dict", "plot_stuff"} <= set(content):
        return (
            f"{file} is a checkpoint of nnU-Net v1 (it has state_dict, no network_weights). Networks and plans of v1 "
            "do not fit v2: convert the dataset with nnUNetv2_convert_old_nnUNet_dataset and train it with v2, or use "
            "a checkpoint of nnU-Net v2."
        )
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return (
            f"{file} is no checkpoint of nnU-Net v2 but bare weights. If their names are those of nnU-Net's networks, "
            "wrap them: torch.save({'network_weights': torch.load(FILE, map_location='cpu')}, NEW_FILE)"
        )
    keys = ", ".join(str(key) for key in list(content)[:MANY]) or "nothing"
    return f"{file} is no checkpoint of nnU-Net v2: it has no network_weights. It has: {keys}. {EXPECTED}"


def without_prefixes(key: str) -> str:
    """The name of a weight without the prefixes of DDP and torch.compile."""
    while key.startswith(PREFIXES):
        key = key.removeprefix(PREFIXES[0]).removeprefix(PREFIXES[1])
    return key
