"""The shell commands that fix what a check found."""

import os
import shlex
from collections.abc import Mapping
from typing import Literal

Shell = Literal["posix", "cmd", "powershell"]


def shell_of(environ: Mapping[str, str], os_name: str = os.name) -> Shell:
    """The shell whose commands the user can paste; only cmd.exe sets PROMPT on Windows."""
    if os_name != "nt":
        return "posix"
    return "cmd" if "PROMPT" in environ else "powershell"


def set_command(name: str, value: str, shell: Shell) -> str:
    """The command that sets an environment variable."""
    if shell == "posix":
        return f"export {name}={shlex.quote(value)}"
    return f"set {name}={value}" if shell == "cmd" else f"$env:{name} = '{value}'"


def unset_command(name: str, shell: Shell) -> str:
    """The command that removes an environment variable."""
    return {"posix": f"unset {name}", "cmd": f"set {name}=", "powershell": f"Remove-Item Env:{name}"}[shell]


def make_folder_command(folder: str, shell: Shell) -> str:
    """The command that creates a folder with its parents."""
    return f"mkdir -p {shlex.quote(folder)}" if shell == "posix" else f'mkdir "{folder}"'


def new_folder_command(name: str, shell: Shell) -> str:
    """The command that makes a folder of the variable's name in the user's home and sets the variable to it."""
    return {
        "posix": f'export {name}="$HOME/{name}" && mkdir -p "$HOME/{name}"',
        "cmd": f'set {name}=%USERPROFILE%\\{name}&& mkdir "%USERPROFILE%\\{name}"',
        "powershell": f'$env:{name} = "$HOME\\{name}"; mkdir $env:{name}',
    }[shell]
