"""Settings of the trainers: what may stand in a plans file under the key ``nnunet_ext`` of a configuration.

They are inherited along ``inherits_from``, key by key. Importing this module imports neither torch nor nnunetv2.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from inspect import getdoc
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, create_model

from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import quoted
from nnunet_ext.registry import TECHNIQUES, user_techniques
from nnunet_ext.techniques import S, Section, Technique


class Settings(Section):
    """The general settings. What is read from plans is a model of `settings_model`, which has the techniques' sections.

    A key that is left out keeps the trainer's own value, which is nnU-Net's wherever a technique's page does not say
    otherwise.
    """

    num_epochs: int | None = Field(None, ge=1, description="Length of the training. nnU-Net: 1000.")
    num_iterations_per_epoch: int | None = Field(None, ge=1, description="Training steps in an epoch. nnU-Net: 250.")
    num_val_iterations_per_epoch: int | None = Field(
        None, ge=1, description="Validation batches per epoch. nnU-Net: 50."
    )
    initial_lr: float | None = Field(None, gt=0, description="Initial learning rate; it decays to 0. nnU-Net: 0.01.")
    weight_decay: float | None = Field(None, ge=0, description="Weight decay. nnU-Net: 3e-5.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Momentum of SGD. nnU-Net: 0.99.")
    nesterov: bool = Field(True, description="Whether SGD's momentum is Nesterov's, as in nnU-Net.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="`sgd` (nnU-Net's) or `adamw`.")
    oversample_foreground_percent: float | None = Field(
        None, ge=0, le=1, description="Share of a batch whose patches are sure to hold foreground. nnU-Net: 0.33."
    )
    save_every: int | None = Field(None, ge=1, description="Epochs from one checkpoint to the next. nnU-Net: 50.")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="Makes a run repeatable: initial weights, batches and every draw of this package follow from it, "
        "whatever the number of workers, and a resumed run equals one that was never interrupted. "
        "Unset: random, as in nnU-Net.",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "contiguous",
        description="Layout of the activations. `auto` measures both at the start and logs what it chose; results "
        "agree to rounding.",
    )

    def section(self, technique: Technique[S]) -> S:
        """The settings of a technique."""
        return getattr(self, technique.name)

    def record(self, techniques: Iterable[Technique[Any]]) -> dict[str, Any]:
        """The general settings and the sections of a trainer's techniques, as plain JSON data."""
        used = {technique.name for technique in techniques}
        return self.model_dump(mode="json", include={*Settings.model_fields, *used})


@lru_cache
def settings_model(more: tuple[Technique[Any], ...] = ()) -> type[Settings]:
    """The settings with a section for each technique of this package and for those that are given."""
    sections: dict[str, Any] = {}
    for technique in dict.fromkeys((*TECHNIQUES, *more)):
        name, model = technique.name, technique.settings
        if model and (name in sections or name in Settings.model_fields):
            raise UserError(f"A technique declares settings named {name!r}, and there are such already. Rename it.")
        if model:
            sections[name] = (model, Field(model(), description=getdoc(model)))
    return create_model("Settings", __base__=Settings, **sections)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, nested mappings key by key; neither is modified."""
    result = dict(base)
    for key, value in changes.items():
        present = result.get(key)
        result[key] = merged(present, value) if isinstance(present, Mapping) and isinstance(value, Mapping) else value
    return result


def configured_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """What a plans file says under ``nnunet_ext`` for a configuration, inherited settings included, not validated.

    Raises:
        UserError: if the configuration, or one it inherits from, does not exist, if the inheritance has a cycle, or if
            the value under ``nnunet_ext`` is no mapping.
    """
    configurations = plans["configurations"]
    chain: list[str] = []
    name: str | None = configuration
    while name is not None:
        if name in chain:
            raise UserError(f"The configurations {' -> '.join([*chain, name])} inherit from each other in a circle.")
        if name not in configurations:
            missing = f"The plans {plans.get('plans_name', '')!r} have no configuration {name!r}; they have: "
            raise UserError(
                f"{missing}{', '.join(configurations)}. If other plans were moved to its place, repeat the "
                "`nnunet_ext configure` or `nnunet_ext plan` command that made it."
            )
        chain.append(name)
        name = configurations[name].get("inherits_from")
    result: dict[str, Any] = {}
    for name in reversed(chain):
        block = configurations[name].get(KEY, {})
        if not isinstance(block, Mapping):
            place = f'The value of "{KEY}" in the configuration {name!r}'
            raise UserError(f"{place} must be a mapping of settings, found: {block!r}.")
        result = merged(result, block)
    return result


def with_whole_block(plans: dict[str, Any], configuration: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the plans whose configuration has all its settings, inherited ones and `changes`, in its own block.

    nnU-Net's inheritance replaces the block as a whole: a network that is built from saved plans would miss the rest.
    """
    block = merged(configured_settings(plans, configuration), changes)
    own = {**plans["configurations"][configuration], KEY: block}
    return {**plans, "configurations": {**plans["configurations"], configuration: own}}


def validated_settings(values: Mapping[str, Any], *, where: str, techniques: Iterable[Technique[Any]] = ()) -> Settings:
    """Check settings and fill in the defaults.

    Techniques in the folders of users are looked for only if there is a key that is not known without them.

    Args:
        values: settings by name, sections as mappings.
        where: their place, for an error, e.g. "configuration '3d_fullres'".
        techniques: may have a section beside those of this package.

    Raises:
        UserError: naming every unknown key and wrong value, with the keys and values that are valid.
    """
    model, broken = settings_model(tuple(techniques)), list[str]()
    if not set(values) <= set(model.model_fields):
        found, broken = user_techniques()
        new = {technique.name: technique for technique in found if technique.name not in model.model_fields}
        model = settings_model((*techniques, *new.values()))
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  - {_describe(problem, model)}" for problem in error.errors())
        raise UserError("\n".join([f"Wrong nnunet_ext settings in {where}:", problems, *broken])) from None


def validated_section(values: Mapping[str, Any], technique: Technique[S], *, where: str) -> S:
    """The settings of one technique, whatever else stands beside them; see `validated_settings`."""
    own = {name: section for name, section in values.items() if name == technique.name}
    return validated_settings(own, where=where, techniques=(technique,)).section(technique)


def _describe(problem: Any, model: type[Section]) -> str:
    """One line for one of pydantic's errors: the key, what is wrong, what would be right."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        owner = _model_at(path[:-1], model)
        place = f"in {'.'.join(path[:-1])!r} " if path[:-1] else ""
        return f"{key}: no such setting. Valid keys {place}are: {', '.join(owner.model_fields)}."
    found = quoted(problem["input"], longest=200)
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {found}."


def _model_at(path: list[str], model: type[Section]) -> type[Section]:
    for part in path:
        annotation: Any = model.model_fields[part].annotation
        # a section that may be left out is a union with None
        options = (one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, Section))
        model = next(options, annotation)
    return model


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each setting that differs between two records, e.g. ``mixup.alpha: 0.4 -> 0.2``."""
    lines = []
    for key in sorted({*recorded, *present}):
        old, new = recorded.get(key), present.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines
