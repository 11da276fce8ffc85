"""The tiny workspace for a program that pytest does not run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

PREPARED = "NNUNET_EXT_TEST_WORKSPACE"  # a workspace that was made before, see tests/README.md
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@contextmanager
def prepared_workspace() -> Iterator[Path]:
    """Prepare the tiny data in a temporary folder, at which nnU-Net's variables point; nothing has imported nnU-Net.

    In it, the folder ``valid`` has valid input for every command.
    """
    with tempfile.TemporaryDirectory(prefix="nnunet_ext tests ") as folder:
        # nnU-Net reads its variables when it is imported, and planning needs a worker
        variables = {name: f"{folder}/{name}" for name in VARIABLES}
        os.environ.update(variables, OMP_NUM_THREADS="1", nnUNet_n_proc_DA="1")
        import nnunet_ext
        from fuzz.commands import make_workspace
        from support.workspace import prepare

        nnunet_ext.register()
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # what nnU-Net prints
            if prepared := os.environ.get(PREPARED):
                shutil.copytree(prepared, folder, dirs_exist_ok=True)
            else:
                prepare(Path(folder))
            os.environ["nnUNet_n_proc_DA"] = "0"
            make_workspace(Path(folder, "valid"), Path(folder))
        yield Path(folder)
