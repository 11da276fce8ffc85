import pytest

from benchmarks.acdc import ORIGIN, Design
from benchmarks.acdc_experiment import build_parser, check_same_plans, folds_by_patient, options_of, request_of
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from support.acdc_programs import GROUPS, write_origin


def test_folds_of_the_experiment_come_from_the_originals(tmp_path):
    write_origin(tmp_path / ORIGIN)
    assert folds_by_patient(tmp_path / ORIGIN, Design(3, 2, 3)) == Design(3, 2, 3).folds(GROUPS)


def test_networks_that_differ_are_refused(tmp_path):
    files = {}
    for name, patch in (("A", [8, 8]), ("B", [8, 16])):
        files[name] = tmp_path / f"{name}.json"
        base, quick = {"spacing": [1, 1], "architecture": {}}, {"inherits_from": "2d", "patch_size": patch}
        write_json(files[name], {"configurations": {"2d": base, "2d_quick": quick}})
    check_same_plans({"A": files["A"], "again": files["A"]}, "2d", "2d_quick")
    with pytest.raises(UserError, match=r"2d_quick of B has patch_size \[8, 16\], that of A has \[8, 8\]"):
        check_same_plans(files, "2d", "2d_quick")


def test_options_that_are_recorded_ask_for_the_same():
    parser = build_parser("benchmarks.example", "An example.", results="the two files")
    given = ["--out", "o", "--configuration", "2d", "--epochs", "7", "--steps", "8", "--lrs", "0.002", "1e-2"]
    given += ["--patients", "3", "--test-patients", "4", "--seeds", "5"]
    request = request_of(parser.parse_args(given), device="cpu")
    assert request["lrs"] == [0.002, 0.01]
    again = parser.parse_args(["--out", "o", *options_of(request).split()])
    assert request_of(again, device=again.device) == request
