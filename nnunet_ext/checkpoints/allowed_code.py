"""What a model's plans may name as code.

nnU-Net finds the classes that plans name by `pydoc.locate`, which imports any module, and calls them with arguments
from the same file. Plans of unknown origin could thus run any program. Here every name is looked at before nnU-Net
sees it.
"""

import re
from inspect import signature
from pydoc import locate
from typing import Any

from dynamic_network_architectures import architectures
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_ext.errors import UserError
from nnunet_ext.formats.plans import require

PACKAGES = ("torch.nn", "dynamic_network_architectures", "nnunet_ext.networks")
"""Where the classes of a network may be defined."""

RESAMPLING = "nnunetv2.preprocessing.resampling"
RESAMPLED = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check_named_code(plans: PlansManager, configuration: ConfigurationManager) -> None:
    """See that a configuration names no code but classes of networks and nnU-Net's resampling.

    Args:
        plans: of the model.
        configuration: of these plans.

    Raises:
        UserError: naming the plans, the key and its value.
    """
    where = f"The plans {plans.plans.get('plans_name')} of {plans.plans.get('dataset_name')}"
    require(configuration.configuration, ["architecture"], where=where)
    architecture = configuration.configuration["architecture"]
    require(architecture, ("network_class_name", "arch_kwargs", "_kw_requires_import"), where=f"{where}: architecture")
    arguments = architecture["arch_kwargs"]
    named = {"network_class_name": architecture["network_class_name"]}
    named |= {key: arguments.get(key) for key in architecture["_kw_requires_import"]}
    for key, name in named.items():
        if name is not None and not _is_part_of_a_network(name):
            raise UserError(
                f"{where} have {key} {name!r}. Only classes of {', '.join(PACKAGES)} can be named there. Nothing of it "
                "was run. Do not use this model if you do not know where it comes from."
            )
    for key in RESAMPLED:
        name = configuration.configuration.get(key)
        if name is None:
            continue
        if not _is_resampling(name):
            raise UserError(f"{where} have {key} {name!r}, which is no function of {RESAMPLING}.")
        given = configuration.configuration.get(f"{key}_kwargs") or {}
        if unknown := set(given) - set(signature(recursive_find_resampling_fn_by_name(name)).parameters):
            raise UserError(f"{where} have {key}_kwargs {', '.join(sorted(unknown))}, which {name} does not take.")


def _is_part_of_a_network(name: Any) -> bool:
    """Whether it is a class of `PACKAGES`. Nothing but these packages is imported to find out."""
    if not isinstance(name, str) or not DOTTED_NAME.fullmatch(name) or not _is_in(name, PACKAGES):
        return False
    found: Any = locate(name)
    if found is None:  # nnU-Net then looks for the class in this folder, as sometimes one moves
        found = recursive_find_python_class(architectures.__path__[0], name.rpartition(".")[2], architectures.__name__)
    return isinstance(found, type) and issubclass(found, nn.Module) and _is_in(found.__module__, PACKAGES)


def _is_resampling(name: Any) -> bool:
    if not isinstance(name, str) or not name.isidentifier():
        return False
    try:
        found: Any = recursive_find_resampling_fn_by_name(name)
    except RuntimeError:
        return False
    return callable(found) and _is_in(getattr(found, "__module__", "") or "", (RESAMPLING,))


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
