import pytest
from pydantic import Field

from nnunet_ext.errors import UserError
from nnunet_ext.plans.settings import (
    configured_settings,
    differences,
    merged,
    settings_model,
    validated_section,
    validated_settings,
)
from nnunet_ext.registry import TECHNIQUES
from nnunet_ext.techniques import Section, Technique
from nnunet_ext.techniques.base import BASE
from nnunet_ext.techniques.mixup import MIXUP


def plans(**configurations):
    return {"plans_name": "nnUNetPlans", "configurations": configurations}


def test_settings_are_inherited_key_by_key():
    content = plans(
        base={"nnunet_ext": {"num_epochs": 5, "mixup": {"alpha": 0.2, "weight": 2.0}}},
        middle={"inherits_from": "base"},
        child={"inherits_from": "middle", "nnunet_ext": {"mixup": {"alpha": 1.0}}},
    )
    assert configured_settings(content, "child") == {"num_epochs": 5, "mixup": {"alpha": 1.0, "weight": 2.0}}
    assert configured_settings(content, "middle") == {"num_epochs": 5, "mixup": {"alpha": 0.2, "weight": 2.0}}


def test_no_settings_anywhere_is_fine():
    assert configured_settings(plans(base={}), "base") == {}


def test_unknown_configuration_names_those_that_exist():
    with pytest.raises(UserError, match=r"no configuration '3d'; they have: 2d, 3d_fullres\..*nnunet_ext configure"):
        configured_settings(plans(**{"2d": {}, "3d_fullres": {}}), "3d")


def test_inheritance_in_a_circle_is_an_error():
    with pytest.raises(UserError, match="a -> b -> a"):
        configured_settings(plans(a={"inherits_from": "b"}, b={"inherits_from": "a"}), "a")


def test_settings_that_are_no_mapping_are_an_error():
    with pytest.raises(UserError, match=r"must be a mapping of settings, found: \[1\]"):
        configured_settings(plans(base={"nnunet_ext": [1]}), "base")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 5}, r"epochs: no such setting\. Valid keys are: num_epochs, "),
        ({"mixup": {"alfa": 1}}, r"mixup\.alfa: no such setting\. Valid keys in 'mixup' are: kind, mode, alpha"),
        ({"num_epochs": "5"}, r"num_epochs: .*integer, found '5'"),
        ({"num_epochs": 0}, r"num_epochs: .*greater than or equal to 1, found 0"),
        ({"seed": True}, r"seed: .*integer, found True"),
        ({"initial_lr": float("nan")}, r"initial_lr: .*finite"),
        ({"optimizer": "adam"}, r"optimizer: .*'sgd' or 'adamw', found 'adam'"),
        ({"mixup": 3}, r"mixup: .*found 3"),
    ],
)
def test_wrong_settings_name_key_value_and_what_is_valid(values, message):
    with pytest.raises(UserError, match=message):
        validated_settings(values, where="configuration 'x'")


def test_a_long_value_is_shown_in_part():
    with pytest.raises(UserError, match="num_epochs: .*found '9999.* …") as error:
        validated_settings({"num_epochs": "9" * 5000}, where="configuration 'x'")
    assert len(str(error.value)) < 400


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(UserError, match=r"(?s)configuration 'x'.*num_epochs.*seed"):
        validated_settings({"num_epochs": -1, "seed": -1}, where="configuration 'x'")


def test_whole_numbers_are_accepted_where_fractions_are():
    assert validated_settings({"initial_lr": 1}, where="x").initial_lr == 1.0


def test_record_leaves_out_sections_of_other_techniques():
    settings = validated_settings({}, where="x")
    names = {technique.name for technique in TECHNIQUES}
    assert set(settings.record((BASE, MIXUP))) & names == {"mixup"}
    assert not set(settings.record(())) & names


def test_differences_name_nested_keys():
    old = {"num_epochs": 5, "mixup": {"alpha": 0.4, "kind": "mixup"}}
    new = {"num_epochs": 5, "mixup": {"alpha": 0.2, "kind": "mixup"}, "seed": 1}
    assert differences(old, new) == ["mixup.alpha: 0.4 -> 0.2", "seed: None -> 1"]
    assert differences(old, old) == []


def test_merging_changes_neither_of_its_arguments():
    base, changes = {"mixup": {"alpha": 1}}, {"mixup": {"weight": 2}}
    assert merged(base, changes) == {"mixup": {"alpha": 1, "weight": 2}}
    assert base == {"mixup": {"alpha": 1}}
    assert changes == {"mixup": {"weight": 2}}


def test_every_setting_has_a_description():
    models = [settings_model(), *(technique.settings for technique in TECHNIQUES if technique.settings)]
    missing = [name for model in models for name, field in model.model_fields.items() if not field.description]
    assert not missing


class NoiseSettings(Section):
    """Noise."""

    sigma: float = Field(1.0, ge=0, description="Standard deviation.")


NOISE = Technique("noise", trainers=(), settings=NoiseSettings)


def test_a_given_technique_is_validated_like_those_of_this_package():
    settings = validated_settings({"noise": {"sigma": 2}, "seed": 1}, where="x", techniques=(BASE, NOISE))
    assert settings.section(NOISE) == NoiseSettings(sigma=2.0)
    assert settings.record((BASE, NOISE))["noise"] == {"sigma": 2.0}
    with pytest.raises(UserError, match=r"noise\.sigmer: no such setting\. Valid keys in 'noise' are: sigma\."):
        validated_settings({"noise": {"sigmer": 2}}, where="x", techniques=(NOISE,))
    with pytest.raises(UserError, match=r"noise: no such setting\. Valid keys are: num_epochs, "):
        validated_settings({"noise": {}}, where="x")


def test_folders_of_users_are_looked_into_for_unknown_keys_alone(monkeypatch):
    looked = []
    monkeypatch.setattr("nnunet_ext.plans.settings.user_techniques", lambda: looked.append(1) or ([NOISE], ["Broken."]))
    validated_settings({"mixup": {}, "noise": {}, "seed": 1}, where="x", techniques=(NOISE,))
    validated_section({"elsewhere": 1}, MIXUP, where="x")
    assert not looked
    assert validated_settings({"noise": {"sigma": 2}}, where="x").section(NOISE).sigma == 2
    with pytest.raises(UserError, match=r"(?s)epochs: no such setting\. .*, noise\.\nBroken\.$"):
        validated_settings({"epochs": 2}, where="x")
    assert len(looked) == 2


def test_one_section_is_read_whatever_stands_beside_it():
    assert validated_section({"elsewhere": 1, "noise": {"sigma": 3}}, NOISE, where="x").sigma == 3
    assert validated_section({}, MIXUP, where="x").alpha == 0.4
    with pytest.raises(UserError, match=r"the plans:\n  - noise\.sigma: .*found -1"):
        validated_section({"noise": {"sigma": -1}}, NOISE, where="the plans")


@pytest.mark.parametrize("name", ["mixup", "seed"])
def test_settings_of_a_name_that_there_is_are_an_error(name):
    with pytest.raises(UserError, match=f"named '{name}', and there are such already"):
        validated_settings({}, where="x", techniques=(Technique(name, trainers=(), settings=NoiseSettings),))


def test_a_setting_without_default_is_an_error():
    class Atlas(Section):
        file: str

    with pytest.raises(ValueError, match="'atlas' have no default: file"):
        Technique("atlas", trainers=(), settings=Atlas)
