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
from dataclasses import asdict

from nnunet_ext.diagnosis import diagnose
from nnunet_ext.findings import problems_and_warnings
from nnunet_ext.version import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    if not args.json:
        print(f"nnunet_ext {__version__}, {sys.executable}\n", flush=True)
    findings = []
    for finding in diagnose(os.environ):
        findings.append(finding)
        if not args.json:
            print(finding, flush=True)
    problems, warnings, found = problems_and_warnings(findings)
    if args.json:
        content = {"problems": problems, "warnings": warnings, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps({"version": __version__, **content}, indent=2))
    elif found:
        print(f"\n{found} found. The lines behind $ fix them; what they set lasts as long as the shell.")
    else:
        print("\nNo problem found.")
    return 1 if problems else 0
