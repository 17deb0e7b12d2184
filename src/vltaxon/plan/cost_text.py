"""The estimate of costs in words: tables for the terminal and the log."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from vltaxon.plan.cost import Estimate, Work

_DEVICES = (1, 4, 32)  # numbers of devices for which the hours until the end are estimated


def describe(estimate: Estimate) -> str:
    """Return an estimate as text: a line per kind of job, totals by target, disk, and licences to accept."""
    rows: list[list[str]] = []
    together: dict[tuple[str, str, str], list[Work]] = defaultdict(list)
    for work in estimate.work:
        together[work.target, work.what, work.who].append(work)
    for key, some in together.items():
        datasets, bases = (
            ", ".join(dict.fromkeys(texts)) for texts in zip(*((w.data, w.basis) for w in some), strict=True)
        )
        state = (
            "done" if all(work.done for work in some) else "partly" if any(work.done for work in some) else ""
        )
        rows.append([state, *key, datasets, *_figures(some), bases])
    for target in (*dict.fromkeys(work.target for work in estimate.work), ""):
        some = [work for work in estimate.work if target in ("", work.target)]
        left = [work for work in some if not work.done]
        for what, part in (("total", some), ("of it not done", left)):
            rows.append(["", target or "everything", what, "", "", *_figures(part), _lacking(part)])
    heads = [
        "",
        "target",
        "what",
        "system or recipe",
        "data sets",
        "requests",
        "image Mtok",
        "prompt Mtok",
        "new Mtok",
        "device h",
        "requests a device h",
        "money",
        "from",
    ]
    disk = [[what, f"{size / 1e9:,.1f}" if size else "size not said"] for what, size in estimate.disk]
    parts = [
        tabulate(
            rows,
            heads,
            tablefmt="github",
            disable_numparse=True,
            colalign=["left"] * 5 + ["right"] * 7 + ["left"],
        ),
        tabulate(disk, ["disk", "GB"], tablefmt="github", disable_numparse=True, colalign=["left", "right"]),
        tabulate(
            list(_waiting(estimate)),
            ["target", "devices", "hours, at least", "at most"],
            tablefmt="github",
            disable_numparse=True,
        ),
        "Licences that you accept by running this:",
        tabulate(estimate.licences, ["data set or model", "terms"], tablefmt="github"),
        "Weights from hubs, adapters and trainer states are not in the disk. An estimate, not a promise: "
        "tokens at 4 letters and at 28 x 28 pixels each, device hours from the speed named, money from the "
        "price in the model's file, in its currency, without discounts.",
    ]
    return "\n\n".join(parts) + "\n"


def _figures(works: Sequence[Work]) -> list[str]:
    tokens = [
        sum(amounts)
        for amounts in zip(*((w.image_tokens, w.prompt_tokens, w.new_tokens) for w in works), strict=True)
    ]
    hours = sum(work.seconds or 0.0 for work in works) / 3600
    known = not works or any(work.seconds is not None for work in works)
    millions = [f"{amount / 1e6:,.2f}" for amount in tokens or [0.0] * 3]
    money = [work.money for work in works if work.money is not None]
    paid = f"{sum(money):,.2f}" if money else ""
    requests = sum(work.requests for work in works)
    alike = len({work.what for work in works}) == 1 and all(work.seconds for work in works)
    rate = f"{requests / hours:,.0f}" if hours and alike else ""
    return [f"{requests:,}", *millions, f"{hours:,.2f}" if known else "?", rate, paid]


def _waiting(estimate: Estimate) -> Iterator[tuple[str, int, str, str]]:
    """Yield bounds of the hours from start to end on some devices, if nothing is done yet (Graham 1966).

    The devices are never idle while a job waits. The hours are no fewer than the longest chain of jobs takes,
    nor than all of the work takes when it is spread evenly; and no more than both together, as long as each
    job wants one device.
    """
    for target, chain in estimate.chains.items():
        total = sum(work.seconds or 0.0 for work in estimate.work if target in ("everything", work.target))
        for devices in _DEVICES:
            least, most = max(chain, total / devices), total / devices + chain * (1 - 1 / devices)
            yield target, devices, f"{least / 3600:,.1f}", f"{most / 3600:,.1f}"


def _lacking(works: Sequence[Work]) -> str:
    number = sum(work.seconds is None for work in works)
    return f"{number} of {len(works)} lines without a speed" if number else ""
