"""The result in two sentences."""

from vltaxon.metrics.compare import Compared, Difference, differences
from vltaxon.report.estimates import Estimate
from vltaxon.report.sections import Content, Section

SECTION = Section(-1)
HCA, LEAF = "hca", "leaf"


def context(content: Content) -> dict[str, object]:
    """Return the sentences; none where one of the two systems has no score."""
    task, about = content.task, content.task.about
    systems = (about.system, about.baseline)
    gains = differences(task.database, [systems], [HCA], task.bootstrap, task.seed)
    gain = gains.get(Compared(systems, about.dataset, about.choices, HCA))
    return {"headline": headline(content, gain)}


def headline(content: Content, gain: Difference | None) -> list[str]:
    """Return the sentences, in the direction that the numbers have.

    Args:
        content: the scores, and which systems and data set the page is about.
        gain: HCA of the system less that of the baseline; None where one has none.
    """
    about, labels = content.task.about, content.labels
    dataset, choices = about.dataset, about.choices
    hca = {s: content.scores.get(dataset, choices, s, HCA) for s in (about.system, about.baseline)}
    leaf = content.scores.get(dataset, choices, about.baseline, LEAF)
    if about.system == about.baseline and (mine := hca[about.system]) is not None and leaf is not None:
        return [
            f"{labels[about.system]} gets the whole lineage right for {_percent(mine)} of the test images of "
            f"{dataset} ({choices} choices), and the leaf for {_percent(leaf)}."
        ]
    mine, other = hca[about.system], hca[about.baseline]
    if mine is None or other is None or leaf is None or gain is None:
        return []
    points, low, high = (100 * number for number in gain[:3])
    verdict = f"{points:+.1f} points" if low * high > 0 else f"{points:+.1f} points, not told apart from none"
    return [
        f"{labels[about.system]} gets the whole lineage right for {_percent(mine)} of the test images of"
        f" {dataset}"
        f" ({choices} choices), {labels[about.baseline]} for {_percent(other)}: {verdict} [{low:+.1f},"
        f" {high:+.1f}],"
        " paired by image.",
        f"{labels[about.baseline]} gets the leaf right for {_percent(leaf)}.",
    ]


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
