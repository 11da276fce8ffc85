"""Reading the checkpoint of a training that goes on or starts from another, and whether its settings permit that."""

import os
import pickle
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.checkpoints.reading import load_file, load_on_cpu
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import counted, listed
from nnunet_ext.nnunet_names import BEST, FINAL, LATEST

ALLOW_CHANGED_SETTINGS = "nnUNet_ext_allow_changed_settings"


def refuse_changes(changes: Sequence[str], filename: str, configuration: str, *, fixed: Collection[str]) -> None:
    """Raise a UserError if a training cannot go on with settings that were changed.

    Args:
        changes: one line for each, which begins with the setting's name and a colon.
        filename: of the checkpoint.
        configuration: where the settings are.
        fixed: names of settings that count at the start of a training alone. Others may change where the environment
            variable nnUNet_ext_allow_changed_settings says so.
    """
    if os.environ.get(ALLOW_CHANGED_SETTINGS, "").lower() not in ("1", "true", "t"):
        raise UserError(
            f"The settings of configuration {configuration!r} are not those that {filename} was trained with "
            f"(checkpoint -> plans file):{listed(changes, None)}\nPut the old values back to continue, or set the "
            f"environment variable {ALLOW_CHANGED_SETTINGS}=1 to continue with the new ones."
        )
    if unchangeable := [line for line in changes if any(_is_of(line.partition(":")[0], name) for name in fixed)]:
        raise UserError(
            f"The training of {filename} cannot go on with another value of what is set at its start (checkpoint "
            f"-> plans file):{listed(unchangeable, None)}\nPut the old values back, or train anew."
        )


def _is_of(setting: str, name: str) -> bool:
    """Whether a setting is the one of a name, or a part of it."""
    return setting == name or setting.startswith(f"{name}.")


@contextmanager
def checkpoint_file(checkpoint: str | os.PathLike[str] | dict[str, Any]) -> Iterator[str]:
    """A file with a checkpoint: `nnUNetTrainer.load_checkpoint` of nnunetv2 2.8 takes only the name of a file."""
    if not isinstance(checkpoint, dict):
        yield os.fspath(checkpoint)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "checkpoint.pth")
        torch.save(checkpoint, file)
        yield file


def read_extra_state(filename: str) -> dict[str, Any]:
    """What `extra_state` put into a checkpoint, empty for one of stock nnU-Net; a UserError if it cannot be read.

    Like nnU-Net itself this unpickles the file: only for checkpoints you trust.
    """
    try:
        # mapped into memory, so that no tensor is read: nnU-Net loads the whole file right after
        return load_on_cpu(filename, weights_only=False, is_mapped=True).get(KEY, {})
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{filename} cannot be read ({reason}). Make it readable, then continue with --c.") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{filename} cannot be read as a checkpoint ({str(error).splitlines()[0]}). It is damaged or cut off: "
            "remove it, so that an older one in the folder is used or the training starts anew."
        ) from None


def best_dice_before(epoch: int, folder: Path) -> float | None:
    """The moving average of pseudo Dice that checkpoint_best.pth was written for, None if nothing tells.

    nnU-Net writes checkpoint_latest.pth before the best checkpoint of the same epoch, so that it records an older best.

    Args:
        epoch: with which a training goes on. A checkpoint of a later one does not count: these epochs come again.
        folder: of the training.
    """
    # without the file, or with one that is damaged, the training goes on as nnU-Net's
    with suppress(UserError):
        content = load_file(folder / BEST, is_mapped=True)
        if isinstance(content, dict) and content.get("current_epoch", epoch + 1) <= epoch:
            return content.get("_best_ema")
    return None


def earlier_run(folder: Path, save_every: int) -> str | None:
    """A warning for a training that begins where a checkpoint lies which ``--c`` would take for its own; else None."""
    written = {FINAL: "at its end", LATEST: f"every {counted(save_every, 'epoch')}"}
    found = next((name for name in written if (folder / name).is_file()), None)
    if found is None:
        return None
    return (
        f"WARNING: {folder / found} is of an earlier run, and this training begins anew. Until it has written its own "
        f"{found} ({written[found]}), --c goes on with the earlier run. Move the file away if you do not need it there."
    )
