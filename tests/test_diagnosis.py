"""Each check of `nnunet_ext.diagnosis` tells a good set-up from the bad one it is there for."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_ext import diagnosis
from nnunet_ext.diagnosis import child, folders, installation, shell, trainers, variable
from nnunet_ext.diagnosis.child import Answer
from nnunet_ext.findings import Finding
from nnunet_ext.registration import VARIABLE, discovery_folder, extended_value

OURS = str(discovery_folder())
PACKAGE = discovery_folder().parent
posix_only = pytest.mark.skipif(os.name == "nt", reason="the commands are run in a POSIX shell")


def make_copy(root: Path) -> Path:
    """Something that looks like another installed copy of this package."""
    package = root / "nnunet_ext"
    for folder in (package, package / "discovery", package / "trainers"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    return package


def variable_findings(value: str | None) -> list[Finding]:
    return variable.check_variable({} if value is None else {VARIABLE: value}, "posix")


def the_bad_one(findings: list[Finding]) -> Finding:
    bad = [finding for finding in findings if finding.severity != "ok"]
    assert len(bad) == 1
    return bad[0]


def value_after(command: str, before: str) -> str:
    """The variable's value after the mending command has run in a shell."""
    fake_command = (
        f'nnunet_ext() {{ if [ "$2" = --only ]; then echo {shlex.quote(OURS)}; '
        f"else echo {shlex.quote(extended_value(before))}; fi; }}; "
    )
    script = f'{fake_command}{command}; printf %s "${VARIABLE}"'
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout


# versions


@pytest.mark.parametrize(("version", "severity"), [((3, 9, 18), "problem"), ((3, 10, 0), "ok"), ((3, 14, 1), "ok")])
def test_python_before_3_10_is_a_problem(version: tuple[int, ...], severity: str) -> None:
    assert installation.check_python(version).severity == severity


@pytest.mark.parametrize(
    ("version", "severity"),
    [
        (None, "problem"),
        ("1.7.1", "problem"),
        ("2.7.9", "problem"),
        ("2.8", "ok"),
        ("2.10.0", "ok"),
        ("3.0", "problem"),
    ],
)
def test_only_nnunetv2_from_2_8_to_before_3_is_fine(version: str | None, severity: str) -> None:
    finding = installation.check_nnunet(version)
    assert finding.severity == severity
    assert finding.fix == ("" if severity == "ok" else 'pip install -U "nnunetv2>=2.8,<3"')


def test_old_nnunetv2_is_explained_in_one_sentence() -> None:
    detail = installation.check_nnunet("2.5.1").detail
    assert "needs nnunetv2 >= 2.8, < 3. Before 2.8, nnU-Net finds its own trainers alone." in detail
    assert "found 2.5.1" in detail


def test_release_is_read_from_development_and_local_versions() -> None:
    assert installation.release_of("2.8.1rc1+cu121") == (2, 8, 1)
    assert installation.release_of("unknown") == ()


def torch_answer(version: str = "2.7.0", cuda: tuple[str, ...] = (), mps: bool = False) -> Answer:
    return Answer(result={"version": version, "cuda": list(cuda), "mps": mps})


@pytest.mark.parametrize(
    ("answer", "driver", "severity", "words"),
    [
        (torch_answer(cuda=("H200",)), True, "ok", "cuda: H200"),
        (torch_answer(mps=True), False, "ok", "device mps"),
        (torch_answer(), False, "ok", "cpu only"),
        (torch_answer(), True, "warning", "sees no GPU"),
        (torch_answer("2.9.1", ("H200",)), True, "warning", "rules torch 2.9 out"),
        (torch_answer("1.13.1"), False, "problem", "torch >= 2.6"),
        (Answer(error="ModuleNotFoundError: No module named 'torch'"), False, "problem", "No module named 'torch'"),
    ],
)
def test_torch_is_judged_by_version_and_devices(answer: Answer, driver: bool, severity: str, words: str) -> None:
    finding = installation.check_torch(answer, driver)
    assert finding.severity == severity
    assert words in finding.detail
    assert bool(finding.fix) == (severity != "ok")


def test_optional_libraries_are_no_problem_and_name_what_needs_them() -> None:
    there, missing = installation.check_optional({"peft": "0.17.0", "submitit": None})
    assert (there.severity, there.detail) == ("ok", "0.17.0")
    assert missing.severity == "ok"
    assert "only nnunet_ext jobs on Slurm needs it (pip install -U submitit)" in missing.detail


# nnUNet_extTrainer


@pytest.mark.parametrize(("value", "state"), [(None, "is not set"), ("", "is empty"), (os.pathsep, "is empty")])
def test_variable_without_content_is_a_problem(value: str | None, state: str) -> None:
    finding = the_bad_one(variable_findings(value))
    assert finding.severity == "problem"
    assert state in finding.detail
    assert "nnunet_ext register --environment" in finding.detail
    assert finding.fix == f'export {VARIABLE}="$(nnunet_ext path)"'


def test_our_folder_alone_or_among_others_is_fine(tmp_path: Path) -> None:
    for value in (OURS, f"{tmp_path}{os.pathsep}{OURS}", f"{OURS}{os.pathsep}{os.pathsep}{tmp_path}", OURS + os.sep):
        assert [finding.severity for finding in variable_findings(value)] == ["ok"]


def test_other_folders_without_ours_are_a_problem_and_the_mend_keeps_them(tmp_path: Path) -> None:
    finding = the_bad_one(variable_findings(str(tmp_path)))
    assert finding.severity == "problem"
    assert "does not hold" in finding.detail
    assert variable.fixed_folders(str(tmp_path)) == [str(tmp_path), OURS]


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        (PACKAGE, "is the package nnunet_ext itself"),
        (PACKAGE / "trainers", "is the package's trainers/"),
        (PACKAGE / "commands", "is the package's commands/"),
        (PACKAGE.parent, "is the folder around the package"),
        (discovery_folder() / "nnunet_ext_trainers.py", "nnU-Net needs the folder"),
    ],
)
def test_wrong_guess_is_recognised_by_name_and_replaced(guess: Path, words: str) -> None:
    finding = the_bad_one(variable_findings(str(guess)))
    assert finding.severity == "problem"
    assert words in finding.detail
    assert finding.fix == f'export {VARIABLE}="$(nnunet_ext path --only)"'


def test_site_packages_is_recognised_even_with_the_package_in_it(tmp_path: Path) -> None:
    site_packages = tmp_path / "lib" / "site-packages"
    make_copy(site_packages)
    assert "is Python's site-packages" in the_bad_one(variable_findings(str(site_packages))).detail


def test_discovery_folder_of_another_copy_is_a_problem(tmp_path: Path) -> None:
    finding = the_bad_one(variable_findings(str(make_copy(tmp_path) / "discovery")))
    assert finding.severity == "problem"
    assert "another copy" in finding.detail


def test_wrong_guess_is_a_problem_before_our_folder_and_a_warning_behind_it() -> None:
    guess = str(PACKAGE / "trainers")
    before, behind = (the_bad_one(variable_findings(os.pathsep.join(pair))) for pair in ((guess, OURS), (OURS, guess)))
    assert (before.severity, behind.severity) == ("problem", "warning")


@pytest.mark.parametrize("decorate", [" {}", "{} ", '"{}"', "'{}'"])
def test_blanks_and_quotes_around_our_folder_are_a_problem(decorate: str) -> None:
    finding = the_bad_one(variable_findings(decorate.format(OURS)))
    assert finding.severity == "problem"
    assert "blanks or quotes" in finding.detail


def test_tilde_is_a_problem_for_our_folder_and_a_warning_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(PACKAGE))
    monkeypatch.setenv("USERPROFILE", str(PACKAGE))
    finding = the_bad_one(variable_findings(f"~{os.sep}discovery"))
    assert (finding.severity, "does not expand" in finding.detail) == ("problem", True)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("USERPROFILE", str(tmp_path.parent))
    value = f"~{os.sep}{tmp_path.name}{os.pathsep}{OURS}"
    assert the_bad_one(variable_findings(value)).severity == "warning"
    assert variable.fixed_folders(value) == [str(tmp_path), OURS]


def test_missing_folder_beside_ours_is_a_warning_and_dropped(tmp_path: Path) -> None:
    value = f"{tmp_path / 'gone'}{os.pathsep}{OURS}"
    finding = the_bad_one(variable_findings(value))
    assert (finding.severity, "does not exist" in finding.detail) == ("warning", True)
    assert variable.fixed_folders(value) == [OURS]


def test_relative_entry_is_named_and_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PACKAGE)
    finding = the_bad_one(variable_findings("discovery"))
    assert "is relative" in finding.detail
    assert variable.fixed_folders("discovery") == [OURS]


@posix_only
def test_mending_command_leaves_nothing_to_find(tmp_path: Path) -> None:
    mine = tmp_path / "my trainers"
    mine.mkdir()
    for value in ("", str(mine), f" {mine}:{PACKAGE}", f"{PACKAGE.parent}", f'"{OURS}":{mine}', f"{mine}/gone:~"):
        findings = variable_findings(value)
        after = value_after(findings[0].fix, value)
        assert {finding.severity for finding in variable_findings(after)} == {"ok"}, value
        assert (str(mine) in after) == (str(mine) in value and "gone" not in value)


def test_our_folder_can_be_put_first(tmp_path: Path) -> None:
    value = f"{tmp_path}{os.pathsep}{OURS}"
    assert variable.fixed_folders(value, ours_first=True) == [OURS, str(tmp_path)]


# other shells


def test_commands_are_those_of_the_users_shell() -> None:
    assert shell.shell_of({"PROMPT": "$P$G"}, os_name="posix") == "posix"
    assert shell.shell_of({"PROMPT": "$P$G"}, os_name="nt") == "cmd"
    assert shell.shell_of({}, os_name="nt") == "powershell"
    assert shell.set_command("A", "x y", "posix") == "export A='x y'"
    assert shell.set_command("A", "x y", "cmd") == "set A=x y"
    assert shell.set_command("A", "x y", "powershell") == "$env:A = 'x y'"
    assert variable.check_variable({}, "powershell")[0].fix == f"$env:{VARIABLE} = '{OURS}'"


# copies of the package


def test_one_copy_is_fine_even_if_the_path_names_it_twice() -> None:
    findings = installation.check_copies(PACKAGE, [str(PACKAGE.parent), str(PACKAGE.parent) + os.sep])
    assert [finding.severity for finding in findings] == ["ok"]


@posix_only
def test_link_to_the_imported_copy_is_no_second_copy(tmp_path: Path) -> None:
    (tmp_path / "nnunet_ext").symlink_to(PACKAGE)
    assert [finding.severity for finding in installation.check_copies(PACKAGE, [str(tmp_path)])] == ["ok"]


def test_second_copy_on_the_path_is_a_warning(tmp_path: Path) -> None:
    other = make_copy(tmp_path)
    finding = the_bad_one(installation.check_copies(PACKAGE, [str(tmp_path), str(PACKAGE.parent)]))
    assert finding.severity == "warning"
    assert str(other) in finding.detail
    assert "Lifelong" not in finding.detail


def test_lifelong_nnunet_is_recognised(tmp_path: Path) -> None:
    for folder in ("network_architecture", "run"):
        (tmp_path / "nnunet_ext" / folder).mkdir(parents=True)
    (tmp_path / "nnunet_ext" / "paths.py").touch()
    assert "Lifelong-nnUNet" in the_bad_one(installation.check_copies(PACKAGE, [str(tmp_path)])).detail


# nnU-Net's folders


def folder_findings(environ: dict[str, str]) -> dict[str, Finding]:
    return {finding.title: finding for finding in folders.check_folders(environ, "posix")}


def test_three_usable_folders_are_fine(tmp_path: Path) -> None:
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    findings = folder_findings(dict.fromkeys(names, str(tmp_path)))
    assert {name: findings[name].severity for name in names} == dict.fromkeys(names, "ok")
    assert list(tmp_path.iterdir()) == []


@posix_only
def test_mend_of_an_unset_folder_sets_and_makes_it(tmp_path: Path) -> None:
    finding = folder_findings({})["nnUNet_results"]
    assert finding.severity == "problem"
    script = f'{finding.fix} && printf %s "$nnUNet_results"'
    shell = subprocess.run(
        ["sh", "-c", script], env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert folder_findings({"nnUNet_results": shell.stdout})["nnUNet_results"].severity == "ok"


@posix_only
def test_mend_of_a_missing_folder_makes_it(tmp_path: Path) -> None:
    environ = {"nnUNet_raw": str(tmp_path / "not yet" / "raw")}
    finding = folder_findings(environ)["nnUNet_raw"]
    assert (finding.severity, "does not exist" in finding.detail) == ("problem", True)
    subprocess.run(["sh", "-c", finding.fix], check=True)
    assert folder_findings(environ)["nnUNet_raw"].severity == "ok"


def test_file_in_place_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "raw").touch()
    finding = folder_findings({"nnUNet_raw": str(tmp_path / "raw")})["nnUNet_raw"]
    assert (finding.severity, "is a file" in finding.detail) == ("problem", True)


@posix_only
def test_tilde_in_a_folder_variable_is_a_problem_with_the_expanded_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    finding = folder_findings({"nnUNet_raw": "~/raw"})["nnUNet_raw"]
    assert (finding.severity, finding.fix) == ("problem", f"export nnUNet_raw={tmp_path}/raw")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that not even root can write into")
def test_unwritable_folder_is_fine_for_raw_only() -> None:
    findings = folder_findings({"nnUNet_raw": "/proc", "nnUNet_results": "/proc"})
    assert findings["nnUNet_raw"].severity == "ok"
    assert findings["nnUNet_results"].severity == "problem"


def test_a_relative_folder_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    finding = folder_findings({"nnUNet_raw": "raw"})["nnUNet_raw"]
    assert finding.severity == "warning"
    assert finding.fix == shell.set_command("nnUNet_raw", str(tmp_path / "raw"), "posix")


def test_unreadable_raw_folder_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(folder: str) -> list[str]:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "listdir", denied)
    finding = folder_findings({"nnUNet_raw": str(tmp_path)})["nnUNet_raw"]
    assert (finding.severity, "Permission denied" in finding.detail) == ("problem", True)


@pytest.mark.parametrize(
    ("value", "severities"), [(None, []), ("4", ["ok"]), ("0", ["warning"]), ("-1", ["warning"]), ("two", ["problem"])]
)
@pytest.mark.parametrize("name", ["nnUNet_n_proc_DA", "nnUNet_def_n_proc"])
def test_worker_count_that_breaks_nnunet_is_reported(value: str | None, severities: list[str], name: str) -> None:
    environ = {} if value is None else {name: value}
    findings = folders.check_workers(environ, "posix")
    assert [finding.severity for finding in findings] == severities
    assert all(finding.fix == f"unset {name}" for finding in findings if finding.severity != "ok")


# child processes


def test_broken_torch_is_reported_and_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    assert child.ask("torch", None, os.environ).error == "OSError: libcudart.so is missing"


def test_module_that_kills_the_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import os; os._exit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    assert "status 7" in child.ask("torch", None, os.environ).error


def test_what_modules_print_does_not_disturb_the_answer(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "import atexit, os; os.system('echo hello'); atexit.register(os.system, 'echo bye')"
    )
    assert child.ask("siblings", [str(tmp_path)], os.environ) == Answer(result=[])


def test_siblings_that_abort_the_lookup_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "a_fine.py").write_text("import json")
    (tmp_path / "b_missing.py").write_text("import surely_not_installed")
    (tmp_path / "c_exit.py").write_text("raise SystemExit(1)")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "d_syntax.py").write_text("def")
    (tmp_path / "not_a_package").mkdir()
    (tmp_path / "not_a_package" / "e_unreached.py").write_text("def")
    findings = trainers.check_siblings([str(tmp_path)], "the fix", os.environ)
    assert {finding.severity for finding in findings} == {"problem"}
    assert {finding.fix for finding in findings} == {"the fix"}
    named = [finding.detail for finding in findings]
    assert len(named) == 3
    for detail, words in zip(named, ("surely_not_installed", "SystemExit: 1", "package.d_syntax"), strict=True):
        assert words in detail


def test_broken_sibling_is_mended_by_our_folder_in_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(job: str, question: object, environ: dict[str, str]) -> Answer:
        asked.append((job, environ[VARIABLE]))
        if job == "siblings":
            return Answer(result=[{"folder": str(tmp_path), "module": "mine", "error": "ImportError"}])
        return Answer(error="stop here")

    monkeypatch.setattr(trainers, "ask", ask)
    value = f"{tmp_path}{os.pathsep}{OURS}"
    findings = trainers.check_trainers({VARIABLE: value}, "posix", ["nnUNetTrainerMixUp"])
    first = f"{OURS}{os.pathsep}{tmp_path}"
    assert findings[0].fix == shell.set_command(VARIABLE, first, "posix")
    assert asked == [("siblings", value), ("find", first)]


# trainers

GOOD = {"class": "nnunet_ext.trainers.mixup.T", "module": "nnunet_ext.trainers.mixup", "again": True, "pickle": "gA=="}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "nnunetv2.training.nnUNetTrainer.variants.T.T"}, "nnU-Net has a T of its own"),
        ({"class": "theirs.T", "module": "theirs"}, "earlier folder"),
        ({"again": False}, "second lookup"),
        ({"unpicklable": "PicklingError: no"}, "worker processes: PicklingError: no"),
        ({"error": "RuntimeError: not found"}, "lookup of T failed: RuntimeError: not found"),
    ],
)
def test_trainer_that_is_not_ours_or_not_stable_is_a_problem(change: dict[str, object], words: str) -> None:
    assert trainers.check_found("T", GOOD, [], "the fix") is None
    finding = trainers.check_found("T", {**GOOD, **change}, [], "the fix")
    assert finding is not None
    assert finding.severity == "problem"
    assert words in finding.detail
    assert finding.fix


def test_a_lookup_that_raises_is_an_error_of_the_lookup() -> None:
    found = child.find_trainers(["nnUNetTrainerNoSuch"])["nnUNetTrainerNoSuch"]
    assert list(found) == ["error"]
    finding = trainers.check_found("nnUNetTrainerNoSuch", found, [], "the fix")
    assert finding is not None
    assert "lookup of nnUNetTrainerNoSuch failed: RuntimeError" in finding.detail


def test_trainer_that_is_another_class_in_a_worker_is_a_problem() -> None:
    assert trainers.check_loaded("T", "m.T", "m.T") is None
    finding = trainers.check_loaded("T", "m.T", "ModuleNotFoundError: No module named 'm'")
    assert finding is not None
    assert "No module named 'm'" in finding.detail


def test_real_lookup_finds_our_trainer_and_names_the_file_that_hides_another(tmp_path: Path) -> None:
    hiding = tmp_path / "hiding.py"
    hiding.write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerMixUp(nnUNetTrainer):\n    pass\n"
    )
    environ = {**os.environ, VARIABLE: f"{tmp_path}{os.pathsep}{OURS}"}
    names = ["nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"]
    clash, fine = trainers.check_trainers(environ, "posix", names)
    assert (clash.severity, fine.severity) == ("problem", "ok")
    assert "nnUNetTrainerMixUp" in clash.detail
    assert str(hiding) in clash.detail
    assert clash.fix == shell.set_command(VARIABLE, f"{OURS}{os.pathsep}{tmp_path}", "posix")
    assert "finds 1 of 2 by name" in fine.detail


@pytest.mark.parametrize("nnunet_version", [None, "2.8.1"])
def test_diagnosis_goes_on_without_torch_and_nnunet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nnunet_version: str | None
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(installation, "installed_version", lambda distribution: nnunet_version)
    findings = {finding.title: finding for finding in diagnosis.diagnose({**os.environ, VARIABLE: OURS})}
    assert findings["nnunetv2"].severity == ("ok" if nnunet_version else "problem")
    assert findings["torch"].severity == "problem"
    assert findings[VARIABLE].severity == "ok"
    assert (findings["trainers"].severity, findings["trainers"].fix) == ("warning", "nnunet_ext doctor")


def test_diagnosis_imports_neither_torch_nor_nnunet() -> None:
    code = (
        "import sys, nnunet_ext.commands.doctor, nnunet_ext.commands.list; "
        "sys.exit(bool({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
