"""What was run: the settings of the experiment and of its models."""

from vltaxon.config.base import HOW, Closed
from vltaxon.report.sections import Content, Section, flat

SECTION = Section(41)


def context(content: Content) -> dict[str, object]:
    """Return the settings, each as named texts: of a model what shapes its answers, defaults included."""
    task = content.task
    settings: dict[str, object] = {
        "seed": task.seed,
        "data sets": ", ".join(task.datasets),
        "choices": ", ".join(task.choices),
        "distractors mined by": task.encoder,
        "trained on": "nothing"
        if task.training is None
        else task.training.model_dump(mode="json", exclude={"settings"}),
        "resamples of an interval": task.bootstrap,
        **{f"model {name}": shaping(model) for name, model in task.models.items()},
    }
    return {"settings": {name: flat(value) for name, value in settings.items()}}


def shaping(model: Closed) -> dict[str, object]:
    """Return what of a model shapes its answers, whether it is a default or not."""
    kept = {name for name, field in type(model).model_fields.items() if not HOW.on(field)}
    values = model.model_dump(mode="json", include=kept)
    return values | {
        name: shaping(value) for name in kept if isinstance(value := getattr(model, name), Closed)
    }
