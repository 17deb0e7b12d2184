"""How the values of steps are merged: a recipe's own, its changes of another, the experiment's settings."""

from collections.abc import Iterable, Mapping
from typing import Any

from vltaxon.config.recipes import STEPS
from vltaxon.config.steps import Step
from vltaxon.errors import suggest

Values = Mapping[str, Any]


def merge(old: Values, new: Values) -> dict[str, Any]:
    """Return old values with new ones put in.

    Mappings that both have are merged in turn, everything else is replaced.

    Args:
        old: values to start from.
        new: values that win.
    """
    both = {
        key: merge(old[key], value)
        for key, value in new.items()
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping)
    }
    return {**old, **new, **both}


def merge_changes(
    steps: Mapping[str, Values], changes: Mapping[str, object]
) -> tuple[dict[str, Values], list[str]]:
    """Merge changes by step into the steps of a recipe.

    Args:
        steps: values by the name of the step, `2-grpo`.
        changes: new values, likewise.

    Returns:
        The changed steps, and what is wrong with the changes, in words.
    """
    changed, problems = dict(steps), []
    for step, change in changes.items():
        if step not in steps or not isinstance(change, Mapping):
            problems.append(f'"{step}" is not {suggest(str(step), steps)}, or is no mapping')
        else:
            changed[step] = merge(changed[step], change)
    return changed, problems


def set_for_recipe(
    settings: Mapping[str, Values], recipe: str, steps: Mapping[str, Values], by_kind: bool = False
) -> list[dict[str, Any]]:
    """Return the steps of a recipe with what the experiment sets in them.

    Args:
        settings: `training: settings:` of the experiment, by kind of step, by recipe, or by `RECIPE/STEP`;
            the later wins.
        recipe: its name.
        steps: values by the name of the step.
        by_kind: whether settings by kind count; a recipe based on another has them from that one.
    """
    whole = []
    for name, values in steps.items():
        if by_kind:
            values = merge(values, settings.get(str(values.get("kind")), {}))
        values = merge(values, _for_step(settings.get(recipe, {}), values, steps.values()))
        whole.append(merge(values, settings.get(f"{recipe}/{name}", {})))
    return whole


def _for_step(settings: Values, step: Values, steps: Iterable[Values]) -> dict[str, Any]:
    """Return the part of a recipe's settings that is for a step.

    These are the fields of its kind, and those that no step of the recipe has.
    """
    kinds = [STEPS.get(str(each.get("kind")), Step).model_fields for each in steps]
    mine = STEPS.get(str(step.get("kind")), Step).model_fields
    return {
        key: value for key, value in settings.items() if key in mine or not any(key in kind for kind in kinds)
    }
