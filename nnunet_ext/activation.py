"""nnUNet_extTrainer for good: set by an environment when it is activated, or by a shell's start-up file.

What is written stands between two marks, so that it can be replaced and taken back to the byte.
"""

import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nnunet_ext.errors import UserError
from nnunet_ext.files import written_whole
from nnunet_ext.registration import VARIABLE, discovery_folder

BEGIN, END = ">>> nnunet_ext register >>>", "<<< nnunet_ext register <<<"
OLD, ACTIVE = f"_OLD_{VARIABLE}", f"_ACTIVE_{VARIABLE}"
BLOCK = re.compile(rf"^[^\n]*{BEGIN}(?:(?!{BEGIN}).)*?{END}[^\n]*\n", re.MULTILINE | re.DOTALL)
LAST_BLOCK = re.compile(
    rf"\n[^\n]*{BEGIN}(?:(?!{BEGIN}).)*{END}[^\n]*\Z", re.DOTALL
)  # of a file without a last newline


@dataclass(frozen=True)
class Dialect:
    """How a family of shells says it. The templates name VARIABLE, OLD and ACTIVE, and FOLDER, which is quoted.

    Attributes:
        remark: begins a comment.
        quote: makes a path one word.
        save: keep the present value.
        extend: add the folder to the present value, if it is not there.
        restore: bring back what `save` kept, if it did.
        deactivation: behind which text of an activation script `restore` belongs; empty where a script of its own does.
    """

    remark: str
    quote: Callable[[str], str]
    save: str
    extend: str
    restore: str
    deactivation: str = ""

    def text(self, *templates: str) -> str:
        """Templates with all names filled in, between the marks."""
        lines = [f"{self.remark} {BEGIN}", *templates, f"{self.remark} {END}"]
        names = {"VARIABLE": VARIABLE, "OLD": OLD, "ACTIVE": ACTIVE, "FOLDER": self.quote(str(discovery_folder()))}
        return re.sub(r"\b(VARIABLE|OLD|ACTIVE|FOLDER)\b", lambda name: names[name[0]], "\n".join(lines)) + "\n"


def _quoted_in_csh(path: str) -> str:
    return shlex.quote(path).replace("!", "\\!")


def _quoted_in_fish(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quoted_in_powershell(path: str) -> str:
    doubled = path.replace("'", "''")
    return f"'{doubled}'"


SH = Dialect(
    "#",
    shlex.quote,
    save='export OLD="${VARIABLE:-}"',
    extend="""case ":${VARIABLE:-}:" in
    *:FOLDER:*) ;;
    *) export VARIABLE="${VARIABLE:+$VARIABLE:}"FOLDER ;;
esac""",
    restore="""if [ -n "${OLD+set}" ] ; then
    if [ -n "$OLD" ] ; then export VARIABLE="$OLD" ; else unset VARIABLE ; fi
    unset OLD
fi""",
    deactivation=r"^deactivate ?\(\) ?\{ *\n",
)
FISH = Dialect(
    "#",
    _quoted_in_fish,
    save='set -gx OLD "$VARIABLE"',
    extend="""if not contains -- FOLDER (string split : -- "$VARIABLE")
    if test -n "$VARIABLE"
        set -gx VARIABLE "$VARIABLE:"FOLDER
    else
        set -gx VARIABLE FOLDER
    end
end""",
    restore="""if set -q OLD
    if test -n "$OLD"
        set -gx VARIABLE "$OLD"
    else
        set -e VARIABLE
    end
    set -e OLD
end""",
    deactivation=r"^function deactivate\b[^\n]*\n",
)
CSH = Dialect(
    "#",
    _quoted_in_csh,
    save="""if (! $?VARIABLE) setenv VARIABLE ""
if (! $?OLD) setenv OLD "$VARIABLE\"""",
    extend="""if (! $?VARIABLE) setenv VARIABLE ""
if ("$VARIABLE" == "") then
    setenv VARIABLE FOLDER
else if (":${VARIABLE}:" !~ *:FOLDER:*) then
    setenv VARIABLE "${VARIABLE}:"FOLDER
endif""",
    restore="""test $?OLD != 0 && setenv VARIABLE "$OLD" && unsetenv OLD""",
    deactivation=r"^alias deactivate '",
)
POWERSHELL = Dialect(
    "#",
    _quoted_in_powershell,
    save="""if (-not $Env:ACTIVE) { $Env:OLD = $Env:VARIABLE }
$Env:ACTIVE = '1'""",
    extend="""if (-not $Env:VARIABLE) {
    $Env:VARIABLE = FOLDER
} elseif (($Env:VARIABLE -split [System.IO.Path]::PathSeparator) -notcontains FOLDER) {
    $Env:VARIABLE = $Env:VARIABLE + [System.IO.Path]::PathSeparator + FOLDER
}""",
    restore="""if ($Env:ACTIVE) {
    $Env:VARIABLE = $Env:OLD
    $Env:OLD = $null
    $Env:ACTIVE = $null
}""",
    deactivation=r"^function global:deactivate ?\([^\n]*\{ *\n",
)
CMD = Dialect(
    "@rem",
    lambda path: path.replace("%", "%%"),
    save="""@if not defined ACTIVE @set "OLD=%VARIABLE%"
@set "ACTIVE=1\"""",
    extend="""@if defined OLD @set "VARIABLE=%OLD%;FOLDER"
@if not defined OLD @set "VARIABLE=FOLDER\"""",
    restore="""@if defined ACTIVE @set "VARIABLE=%OLD%"
@set "OLD="
@set "ACTIVE=\"""",
)
VENV = {"activate": SH, "activate.fish": FISH, "activate.csh": CSH, "[Aa]ctivate.ps1": POWERSHELL, "activate.bat": CMD}
CONDA = {".sh": SH, ".fish": FISH, ".csh": CSH, ".ps1": POWERSHELL, ".bat": CMD}


@dataclass(frozen=True)
class Edit:
    """A file, with what it holds and what it is to hold; None where there is no file."""

    file: Path
    before: str | None
    after: str | None

    def make(self) -> None:
        """Write the file whole, or remove it."""
        if self.after is None:
            self.file.unlink()
            with suppress(OSError):  # folders that hold something else stay
                for folder in list(self.file.parents)[:3]:  # etc/conda/activate.d
                    folder.rmdir()
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.file) as temporary:
            temporary.write_bytes(_encoded(self.after))


def edits_of_environment(prefix: Path, *, undo: bool = False) -> list[Edit]:
    """What makes a conda or virtual environment set the variable when it is activated, or no longer do so.

    Raises:
        UserError: if there is no environment in the folder, or a script of it is not what it should be.
    """
    if (prefix / "conda-meta").is_dir():
        folder = prefix / "etc" / "conda"
        texts = [
            (folder / f"{act}ivate.d" / f"nnunet_ext{ending}", dialect.text(*templates))
            for ending, dialect in CONDA.items()
            for act, templates in (("act", (dialect.save, dialect.extend)), ("deact", (dialect.restore,)))
        ]
        return [Edit(file, _read(file) if file.exists() else None, None if undo else text) for file, text in texts]
    if not (prefix / "pyvenv.cfg").is_file():
        raise UserError(
            f"{prefix} is neither a conda nor a virtual environment, so that nothing is run when it is activated. "
            "Name your shell's start-up file instead: nnunet_ext register --start-up FILE"
        )
    programs = prefix / ("Scripts" if os.name == "nt" else "bin")
    scripts = [(file, dialect) for name, dialect in VENV.items() for file in sorted(programs.glob(name))]
    if not scripts:
        raise UserError(
            f"{programs} has no activate script; found neither activate nor one for another shell. Make the scripts "
            f"anew (python -m venv {shlex.quote(str(prefix))}), or name your shell's start-up file: "
            "nnunet_ext register --start-up FILE"
        )
    edits = [_edit(file, partial(_in_script, dialect=dialect), undo=undo) for file, dialect in scripts]
    batch = programs / "deactivate.bat"
    if (programs / "activate.bat") in [file for file, _ in scripts] and batch.is_file():
        edits.append(_edit(batch, lambda text: _behind(text, CMD.text(CMD.restore)), undo=undo))
    return edits


def edit_of_start_up_file(file: Path, *, undo: bool = False) -> Edit:
    """What makes a shell set the variable when it starts, or no longer do so. The file's name tells which shell it is.

    Raises:
        UserError: if the file is missing or not to be written to.
    """
    file = Path(os.path.realpath(file.expanduser()))  # a link to where the user keeps such files stays one
    if not file.is_file():
        raise UserError(f"{file} is no file. Give your shell's start-up file, such as ~/.bashrc, or make it first.")
    dialect = FISH if file.suffix == ".fish" else POWERSHELL if file.suffix == ".ps1" else SH
    if file.name in (".login", "csh.cshrc") or file.name.endswith("cshrc"):
        dialect = CSH
    return _edit(file, lambda text: _behind(text, dialect.text(dialect.extend)), undo=undo)


def _edit(file: Path, changed: Callable[[str], str | None], *, undo: bool) -> Edit:
    if not file.stat().st_mode & 0o200:
        raise UserError(f"{file} is read-only. Make it writable (chmod u+w), or set {VARIABLE} in another way.")
    before = _read(file)
    lines = before.count("\n")
    windows = lines > 0 and before.count("\r\n") == lines
    text = _without(before.replace("\r\n", "\n") if windows else before)
    if BEGIN in text:
        raise UserError(
            f"{file} has the line {BEGIN!r}, and the one that ends what this command writes has gone. Nothing was "
            "written. Remove that line, and what this command wrote below it."
        )
    after = text if undo else changed(text)
    if after is None:
        raise UserError(
            f"{file} is not as venv and virtualenv write it: it defines no deactivate. Nothing was written. Name your "
            "shell's start-up file instead: nnunet_ext register --start-up FILE"
        )
    return Edit(file, before, after.replace("\n", "\r\n") if windows else after)


def _in_script(text: str, dialect: Dialect) -> str | None:
    """An activation script that sets the variable, and takes it back when the environment is left."""
    if dialect.deactivation:
        found = re.search(dialect.deactivation, text, re.MULTILINE)
        if found is None:
            return None
        # csh has no functions: all is one line
        restore = f"{_inline()} " if dialect is CSH else dialect.text(dialect.restore)
        text = text[: found.end()] + restore + text[found.end() :]
    return _behind(text, dialect.text(dialect.save, dialect.extend))


def _inline() -> str:
    return CSH.text(CSH.restore).splitlines()[1] + ";"


def _behind(text: str, block: str) -> str:
    return text + block if not text or text.endswith("\n") else f"{text}\n{block}".removesuffix("\n")


def _without(text: str) -> str:
    """A text without what this module has put into it."""
    text = LAST_BLOCK.sub("", text)
    return BLOCK.sub("", text).replace(f"{_inline()} ", "")


def _read(file: Path) -> str:
    """A file's text, with its line endings and with bytes that are no UTF-8."""
    try:
        return file.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
