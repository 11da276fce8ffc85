"""Check the installation and say how to fix what is wrong.

Looks at Python, nnunetv2, torch, nnU-Net's variables and folders, and finds every trainer as nnU-Net does. It changes
nothing. Exit status 0 if there is no problem (warnings alone count as none), 1 if there is one. Example:

    nnunet_ext doctor
    nnunet_ext doctor --json
"""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from nnunet_ext.diagnosis import Finding, diagnose
from nnunet_ext.version import __version__

WIDTH = 100
TITLE_WIDTH = len("nnUNet_preprocessed")
COLUMN = len("problem") + 2 + TITLE_WIDTH + 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    if not args.json:
        print(f"nnunet_ext {__version__}, {sys.executable}\n", flush=True)
    findings = []
    for finding in diagnose(os.environ):
        findings.append(finding)
        if not args.json:
            print(layout(finding), flush=True)
    problems, warnings = count(findings, "problem"), count(findings, "warning")
    if args.json:
        content = {"problems": problems, "warnings": warnings, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps({"version": __version__, **content}, indent=2))
    else:
        print(f"\n{summary(problems, warnings)}")
    return 1 if problems else 0


def count(findings: Sequence[Finding], severity: str) -> int:
    return sum(finding.severity == severity for finding in findings)


def layout(finding: Finding) -> str:
    """A finding as lines of text. The command that fixes it is never wrapped, so that it can be copied."""
    first = f"{finding.severity:7}  {finding.title:{TITLE_WIDTH}}  "
    wrapped = textwrap.fill(
        finding.detail,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * COLUMN,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{wrapped}\n{' ' * COLUMN}$ {finding.fix}" if finding.fix else wrapped


def summary(problems: int, warnings: int) -> str:
    """The last line of the page."""
    found = counted(problems, warnings)
    if not found:
        return "No problem found."
    return f"{found} found. The lines behind $ fix them; what they set lasts as long as the shell."


def counted(problems: int, warnings: int) -> str:
    """How many there are of each; empty if there is none."""
    counts = ((problems, "problem"), (warnings, "warning"))
    return " and ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts if n)
