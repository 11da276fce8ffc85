"""``nnunet_ext configure`` and ``nnunet_ext plan`` on plans files as nnU-Net writes them."""

import json

import pytest

from nnunet_ext.arguments import parse_settings
from nnunet_ext.claims import only_run
from nnunet_ext.cli import main
from nnunet_ext.errors import UserError
from nnunet_ext.plans.plans_file import check_configuration_name


@pytest.fixture
def plans_file(tmp_path, monkeypatch):
    root = tmp_path / "pre processed"
    folder = root / "Dataset004_Hippocampus"
    folder.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(root))
    file = folder / "nnUNetPlans.json"
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [32, 64, 128],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "kernel_sizes": [[3, 3, 3]] * 3,
    }
    full = {
        "patch_size": [40, 56, 40],
        "spacing": [1.0, 1.0, 1.0],
        "batch_size": 9,
        "architecture": {"network_class_name": "x", "arch_kwargs": kwargs, "_kw_requires_import": []},
    }
    file.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": full}}))
    return file


def configurations(file):
    return json.loads(file.read_text())["configurations"]


def test_configure_writes_a_configuration_and_leaves_the_rest(plans_file):
    before = configurations(plans_file)["3d_fullres"]
    assert main(["configure", "-d", "4", "--name", "short", "num_epochs=50", "mixup.kind=cutmix"]) == 0
    after = configurations(plans_file)
    assert after["short"] == {
        "inherits_from": "3d_fullres",
        "nnunet_ext": {"num_epochs": 50, "mixup": {"kind": "cutmix"}},
    }
    assert after["3d_fullres"] == before


def test_configure_can_be_repeated(plans_file, capsys):
    command = ["configure", "-d", "Dataset004_Hippocampus", "--name", "short", "num_epochs=50"]
    assert main(command) == 0
    content = plans_file.read_text()
    assert main(command) == 0
    assert plans_file.read_text() == content
    assert "Already there" in capsys.readouterr().out


def test_other_content_under_the_same_name_needs_force(plans_file, capsys):
    main(["configure", "-d", "4", "--name", "short", "num_epochs=50"])
    content = plans_file.read_text()
    assert main(["configure", "-d", "4", "--name", "short", "num_epochs=60"]) == 2
    assert "--force" in capsys.readouterr().err
    assert plans_file.read_text() == content
    assert main(["configure", "-d", "4", "--name", "short", "num_epochs=60", "--force"]) == 0
    assert configurations(plans_file)["short"]["nnunet_ext"] == {"num_epochs": 60}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "short", "epochs=5"], "no such setting"),
        (["--name", "short", "num_epochs=many"], "found 'many'"),
        (["--name", "short", "num_epochs"], "KEY=VALUE"),
        (["--name", "a/b", "num_epochs=5"], "cannot name a configuration"),
        (["--name", "3d_fullres", "num_epochs=5"], "inherit from itself"),
        (["--name", "short", "-c", "2d", "num_epochs=5"], "no configuration '2d'"),
        (["num_epochs=5"], "no --name"),
        (["--force"], "Add its --name"),
        (["-p", "Other", "--name", "short"], "There is no plans file"),
    ],
)
def test_wrong_use_changes_nothing_and_says_what_is_wrong(plans_file, capsys, arguments, message):
    content = plans_file.read_text()
    assert main(["configure", "-d", "4", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert plans_file.read_text() == content


def test_what_others_inherit_from_is_not_destroyed(plans_file, capsys):
    assert main(["configure", "-d", "4", "--name", "short", "num_epochs=50"]) == 0
    assert main(["configure", "-d", "4", "-c", "short", "--name", "seeded", "seed=1"]) == 0
    before = plans_file.read_text()
    for base, name, message in (
        (
            "seeded",
            "short",
            "it would be wrong: configurations inherit in a circle: short from seeded from short",
        ),
        ("short", "3d_fullres", "'3d_fullres' in"),
    ):
        capsys.readouterr()
        assert main(["configure", "-d", "4", "-c", base, "--name", name, "num_epochs=5", "--force"]) == 2
        said = capsys.readouterr()
        assert message in said.err
        assert "Wrote" not in said.out
        assert plans_file.read_text() == before


def test_settings_that_adamw_does_not_have_are_told_of(plans_file, capsys):
    assert main(["configure", "-d", "4", "--name", "a", "optimizer=adamw", "momentum=0.5"]) == 0
    assert "Note: momentum: AdamW has no such setting" in capsys.readouterr().out
    assert main(["configure", "-d", "4", "--name", "b", "optimizer=adamw", "weight_decay=0.5"]) == 0
    assert "Note" not in capsys.readouterr().out


def test_options_of_another_model_are_refused_beside_a_preset(plans_file, capsys):
    assert main(["plan", "-d", "4", "--preset", "quick", "--stem", "CT", "--parts", "all"]) == 2
    assert "--parts, --stem: for --like, not for --preset" in capsys.readouterr().err


def test_a_configuration_that_has_gone_is_named_with_the_command_that_brings_it_back(plans_file, capsys):
    main(["configure", "-d", "4", "--name", "short one", "num_epochs=50"])
    plans = json.loads(plans_file.read_text())
    del plans["configurations"]["short one"]
    plans_file.write_text(json.dumps(plans))
    capsys.readouterr()
    assert main(["configure", "-d", "4"]) == 0
    shown = capsys.readouterr().err
    assert "short one was written here earlier and has gone" in shown
    command = shown.split("To have it back: nnunet_ext ")[1]
    import shlex

    assert main(shlex.split(command)) == 0
    assert configurations(plans_file)["short one"]["nnunet_ext"] == {"num_epochs": 50}


def test_what_is_remembered_of_two_plans_files_is_in_one_file(plans_file, capsys):
    """Which one run at a time changes, and which is read before anything is written."""
    other = plans_file.with_name("otherPlans.json")
    other.write_bytes(plans_file.read_bytes())
    memory = plans_file.with_name("nnunet_ext_configurations.json")
    with only_run(memory), pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnunet_ext.plans.plans_file.PATIENCE_S", 0)
        assert main(["configure", "-d", "4", "--name", "short", "num_epochs=50"]) == 2
    assert "Another run" in capsys.readouterr().err
    memory.write_text("{")
    assert main(["configure", "-d", "4", "--name", "short", "num_epochs=50"]) == 2
    assert "nnunet_ext_configurations.json is not valid JSON" in capsys.readouterr().err
    assert plans_file.read_bytes() == other.read_bytes()


def test_listing_shows_inherited_settings(plans_file, capsys):
    main(["configure", "-d", "4", "--name", "a", "num_epochs=50"])
    main(["configure", "-d", "4", "--name", "b", "-c", "a", "seed=3"])
    capsys.readouterr()
    main(["configure", "-d", "4"])
    assert 'b: {"num_epochs": 50, "seed": 3}' in capsys.readouterr().out


def test_missing_variable_names_it(monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert main(["configure", "-d", "4"]) == 2
    assert "nnUNet_preprocessed is not set" in capsys.readouterr().err


def test_unplanned_dataset_says_how_to_plan_it(plans_file, capsys):
    assert main(["configure", "-d", "5"]) == 2
    assert "nnUNetv2_plan_and_preprocess -d 5" in capsys.readouterr().err


def test_plans_of_an_older_nnunet_are_refused(plans_file, capsys):
    plans = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": {"UNet_class_name": "PlainConvUNet"}}}
    plans_file.write_text(json.dumps(plans))
    assert main(["plan", "-d", "4", "--preset", "quick"]) == 2
    assert "made by an older nnU-Net" in capsys.readouterr().err


def test_cut_off_plans_are_refused(plans_file, capsys):
    plans_file.write_text(plans_file.read_text()[:50])
    assert main(["configure", "-d", "4"]) == 2
    assert "not valid JSON" in capsys.readouterr().err


def test_quick_preset_goes_on_top_of_existing_plans(plans_file, capsys):
    assert main(["plan", "-d", "4", "--preset", "quick", "--epochs", "3"]) == 0
    assert capsys.readouterr().out.startswith("3d_fullres_quick")
    quick = configurations(plans_file)["3d_fullres_quick"]
    assert quick["nnunet_ext"]["num_epochs"] == 3
    assert quick["architecture"]["arch_kwargs"]["features_per_stage"][0] == 8
    assert main(["plan", "-d", "4", "--preset", "quick", "--epochs", "3"]) == 0
    assert main(["plan", "-d", "4", "--preset", "quick", "--epochs", "0", "--force"]) == 2


def test_a_setting_given_twice_is_an_error():
    with pytest.raises(UserError, match=r"'mixup.alpha' is given twice"):
        parse_settings(["mixup.alpha=1", "mixup.alpha=2"])


@pytest.fixture
def cascade(plans_file):
    """Plans with a cascade, as nnU-Net writes them."""
    content = json.loads(plans_file.read_text())
    content["configurations"]["3d_lowres"] = {"inherits_from": "3d_fullres", "next_stage": "3d_cascade_fullres"}
    content["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans_file.write_text(json.dumps(content))
    return plans_file


@pytest.mark.parametrize(
    ("base", "first", "second"),
    [("3d_cascade_fullres", "short_lowres", "short"), ("3d_lowres", "short", "short_cascade")],
)
def test_a_stage_of_a_cascade_gets_the_other_one(cascade, capsys, base, first, second):
    command = ["configure", "-d", "4", "-c", base, "--name", "short", "num_epochs=5"]
    assert main(command) == 0
    after = configurations(cascade)
    settings = {"nnunet_ext": {"num_epochs": 5}}
    assert after[first] == {"inherits_from": "3d_lowres", "next_stage": second, **settings}
    assert after[second] == {"inherits_from": "3d_cascade_fullres", "previous_stage": first, **settings}
    assert f"in this order, by the same trainer: {first}, {second}." in capsys.readouterr().out
    assert main(command) == 0, "it can be repeated"
    assert configurations(cascade) == after


def test_the_stages_of_a_cascade_cannot_begin_with_the_same_weights(cascade, capsys):
    before = cascade.read_bytes()
    command = ["configure", "-d", "4", "-c", "3d_lowres", "--name", "tuned", "fine_tuning.source=/models/a.pth"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "tuned and tuned_cascade are the stages of a cascade" in said
    assert "-pretrained_weights" in said
    assert cascade.read_bytes() == before


def test_a_pair_can_be_derived_from_a_pair(cascade):
    main(["configure", "-d", "4", "-c", "3d_cascade_fullres", "--name", "one", "num_epochs=5"])
    assert main(["configure", "-d", "4", "-c", "one", "--name", "two", "seed=1"]) == 0
    after = configurations(cascade)
    assert (after["two_lowres"]["inherits_from"], after["two_lowres"]["next_stage"]) == ("one_lowres", "two")
    assert (after["two"]["inherits_from"], after["two"]["previous_stage"]) == ("one", "two_lowres")


def test_nothing_is_written_if_the_name_of_the_other_stage_is_taken(cascade, capsys):
    main(["configure", "-d", "4", "--name", "short_lowres", "num_epochs=9"])
    before = cascade.read_text()
    assert main(["configure", "-d", "4", "-c", "3d_cascade_fullres", "--name", "short", "num_epochs=5"]) == 2
    assert "'short_lowres'" in capsys.readouterr().err
    assert cascade.read_text() == before


def test_first_stage_of_several_cascades_is_refused(cascade, capsys):
    content = json.loads(cascade.read_text())
    content["configurations"]["3d_lowres"]["next_stage"] = ["3d_cascade_fullres", "other"]
    cascade.write_text(json.dumps(content))
    assert main(["configure", "-d", "4", "-c", "3d_lowres", "--name", "short", "num_epochs=5"]) == 2
    assert "3d_cascade_fullres, other" in capsys.readouterr().err


def test_other_stages_that_have_gone_are_named_with_the_command_that_wrote_both(cascade, capsys):
    main(["configure", "-d", "4", "-c", "3d_lowres", "--name", "short", "num_epochs=5"])
    content = json.loads(cascade.read_text())
    del content["configurations"]["short"], content["configurations"]["short_cascade"]
    cascade.write_text(json.dumps(content))
    capsys.readouterr()
    main(["configure", "-d", "4"])
    told = capsys.readouterr().err
    for name in ("short", "short_cascade"):
        assert f"Configuration {name} was written" in told
    assert told.count("-c 3d_lowres --name short num_epochs=5") == 2


@pytest.mark.parametrize(
    "name", ["-x", ".x", "..", "=x", "x.", "con", "a\nb", "a\tb", "x\udcff", "x" * 400, "ü" * 150], ids=ascii
)
def test_names_that_no_later_command_can_use_are_refused(name):
    with pytest.raises(UserError, match=r"cannot name a configuration: .* Choose another name\.") as error:
        check_configuration_name(name)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["2d", "3d_fullres_s1", "short-2", "a.b", "fälle 3", "x=3"])
def test_ordinary_names_of_configurations_are_taken(name):
    check_configuration_name(name)


def test_a_wrong_name_writes_nothing(plans_file, capsys):
    before = plans_file.read_text()
    assert main(["configure", "-d", "4", "--name=-x", "num_epochs=5"]) == 2
    assert "'-x' cannot name a configuration: it begins with -" in capsys.readouterr().err
    assert plans_file.read_text() == before
