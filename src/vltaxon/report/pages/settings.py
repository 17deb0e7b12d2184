"""What was run: the settings of the experiment and of its models."""

from vltaxon.report.sections import Content, Section, flat

SECTION = Section(41)


def context(content: Content) -> dict[str, object]:
    """Return the settings, each as named texts."""
    return {"settings": {name: flat(value) for name, value in content.task.settings.items()}}
