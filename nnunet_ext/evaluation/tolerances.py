"""How far from the other surface a surface may lie to count as right, for each label."""

from collections.abc import Iterable, Sequence

from nnunet_ext.errors import UserError


def tolerances_by_label(given: Sequence[tuple[str | None, float]], labels: Iterable[str]) -> dict[str, float]:
    """The tolerance of each label that is scored, in mm, from pairs of a label and its tolerance.

    A pair with None holds for all labels that are not named. There is no default, as what deviation is harmless is a
    clinical choice.

    Raises:
        UserError: if a label has none or two, or a name is none of the labels.
    """
    labels = list(labels)
    by_name = dict(given)
    if len(by_name) < len(given):
        twice = [name for name, _ in given if [other for other, _ in given].count(name) > 1][0]
        raise UserError(
            f"--tolerance gives {'several numbers without a label' if twice is None else f'{twice} several times'}. "
            "Give one for each label, as LABEL=MM, and at most one number alone, for all others."
        )
    unknown = [name for name in by_name if name is not None and name not in labels]
    if unknown:
        raise UserError(
            f"--tolerance names {', '.join(unknown)}, but the labels that are scored are {', '.join(labels)}."
        )
    missing = [] if None in by_name else [label for label in labels if label not in by_name]
    if missing:
        raise UserError(
            f"--tolerance has nothing for {', '.join(missing)}. Name each label that is scored, as {missing[0]}=MM, or "
            "give a number alone for all others."
        )
    return {label: by_name[label if label in by_name else None] for label in labels}
