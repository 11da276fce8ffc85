import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.plans.settings import (
    Settings,
    configured_settings,
    differences,
    merged,
    section_names,
    settings_record,
    validated_settings,
)


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


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(UserError, match=r"(?s)configuration 'x'.*num_epochs.*seed"):
        validated_settings({"num_epochs": -1, "seed": -1}, where="configuration 'x'")


def test_whole_numbers_are_accepted_where_fractions_are():
    assert validated_settings({"initial_lr": 1}, where="x").initial_lr == 1.0


def test_record_leaves_out_sections_of_other_techniques():
    assert "mixup" in settings_record(Settings(), ("mixup",))
    assert not set(section_names()) & set(settings_record(Settings(), ()))


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
    sections = [Settings, *(Settings.model_fields[name].annotation for name in section_names())]
    missing = [name for section in sections for name, field in section.model_fields.items() if not field.description]
    assert not missing
