"""The report page: whole, offline, escaped, accessible, and true to the scores."""

import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.data.builder import LABELS
from tests.unit.report.conftest import DATABASE, HOSTILE, SCORES
from tests.unit.report.test_usage import benchmark
from vltaxon.config.experiment import AboutReport, Partition, System, Training
from vltaxon.engines.zero_shot import Clip
from vltaxon.metrics import heads
from vltaxon.metrics.compare import Difference
from vltaxon.report import pages
from vltaxon.report.estimates import Estimate, Scores
from vltaxon.report.page import write_report
from vltaxon.report.pages.examples import drawn as _drawn
from vltaxon.report.pages.headline import headline
from vltaxon.report.sections import Content
from vltaxon.tasks.scoring import ReportTask

IMAGES = Path("results/data/demo_plants/images.parquet")
SECTIONS = [path.stem for path in Path(pages.__path__[0]).glob("[a-z]*.py")]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Tags with attributes, text, and whether every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_task(**values: Any) -> ReportTask:
    """The task of a page about the plants; `values` go in the place of nothing trained, drawn or set."""
    given: dict[str, Any] = {
        "about": AboutReport(dataset="demo_plants", choices="similar", system="vl_taxon", baseline="base", examples=20),
        "systems": {name: System(model="m", protocol="direct", label=label) for name, label in LABELS.items()},
        "pages": tuple(f"vltaxon.report.pages.{name}" for name in SECTIONS),
        "scores": SCORES, "database": DATABASE, "images": IMAGES, "benchmarks": Path("benchmarks"), "bootstrap": 50, "seed": 0,
        "datasets": ("demo_plants",), "choices": ("similar",), "encoder": "e", "models": {},
        "training": Training(dataset="demo_plants", partition=Partition(held_out=1)), "steps": (),
        "figures": (), "records": (), "metrics": heads.files(), "site": (),
        "page": Path("results/report/index.html"),
    }  # fmt: skip
    return ReportTask(**given | values)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name in ("level_accuracy", "training"):
            Path(f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>", encoding="utf-8")
        Path("record.json").write_text(json.dumps({"adapter_after": "cd" * 32, "steps": 3}), encoding="utf-8")
        benchmark(Path("benchmarks/train/tiny/vl_taxon/1-sft.jsonl"), 600, 2500.0, 900, gpu=1)
        write_report(
            page_task(
                figures=(Path("level_accuracy.svg"), Path("training.svg")),
                steps=("vl_taxon 2-grpo",),
                records=(Path("record.json"),),
                models={"m": Clip(engine="zero_shot", name="<b>", licence="theirs")},
            )
        )
        return Path("results/report/index.html").read_text("utf-8")


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_it_is_one_well_formed_file_that_needs_no_network(page: str, read: Reader) -> None:
    assert not read.open
    for tag, attributes in read.tags:
        for name in ("src", "href"):
            assert str(attributes.get(name, "#")).startswith(("data:", "#")), (tag, attributes)
    assert "url(" not in page and "@import" not in page


def test_model_text_is_text(page: str, read: Reader) -> None:
    assert page.count("<script") == 1 and HOSTILE not in page
    assert HOSTILE in read.text
    assert "onerror" not in {name for _, attributes in read.tags for name in attributes}
    tags = Counter(tag for tag, _ in read.tags)
    assert tags["details"] == 1 + 1 + 2 * 20  # notes, one record, two stage 1 systems of twenty images
    assert "<b>" in read.text


def test_images_have_alternatives_and_tables_have_headers(read: Reader) -> None:
    pictures = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(pictures) == 22 and all(attributes["alt"] for attributes in pictures)
    heads = [attributes for tag, attributes in read.tags if tag == "th"]
    assert heads and all(attributes["scope"] in ("row", "col") for attributes in heads)
    assert ("html", {"lang": "en"}) in read.tags


def test_marks_agree_with_the_database(page: str) -> None:
    """Each answer shown is right exactly where the scores say so, by colour, sign and word."""
    sections = re.findall(r"<article>(.*?)</article>", page, re.DOTALL)
    assert len(sections) == 20
    checked = 0
    with duckdb.connect(str(DATABASE), read_only=True) as connection:
        for section in sections:
            image = re.search(r'class="id">(.*?)<', section)
            assert image
            for system in ("base", "chance"):
                row = re.search(
                    rf'<th scope="row">{re.escape(LABELS[system])}</th>(.*?)</tr>', section, re.DOTALL
                )
                cells = re.findall(
                    r'<td class="(\w+)"><span role="img" aria-label="([\w ]+)">(.)</span>',
                    row.group(1) if row else "",
                )
                wanted = connection.execute(
                    "SELECT correct, outcome FROM judged WHERE system = ? AND image_id = ? AND choices = 'similar'"
                    " ORDER BY level",
                    [system, image.group(1)],
                ).fetchall()
                answers = {True: ("right", "right", "✓"), False: ("wrong", "wrong", "✗")}
                none = ("none", "no answer", "?")
                assert cells == [
                    answers[right] if outcome == "answered" else none for right, outcome in wanted
                ]
                checked += len(cells)
    assert checked == 20 * 2 * 6


def test_examples_are_spread_over_the_species_and_seeded() -> None:
    drawn = _drawn(IMAGES, 20, 0)
    assert len({image.rpartition("-")[0] for image in drawn}) == 20
    assert drawn == _drawn(IMAGES, 20, 0) != _drawn(IMAGES, 20, 1)
    assert len(set(_drawn(IMAGES, 1000, 0))) == 64


def test_a_share_of_cut_answers_warns(page: str) -> None:
    """The bench's answers are cut now and then; the mark and its line stand together, and only above 1 %."""
    with duckdb.connect(str(DATABASE), read_only=True) as connection:
        cut = connection.execute(
            "SELECT DISTINCT dataset, choices, system FROM scores"
            " WHERE metric = 'outcome_truncated' AND value > 0.01 AND subset = 'all'"
        ).fetchall()
    assert cut and page.count('<p class="warning">') == len(cut) == page.count(" †</th>")


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Difference(0.4, 0.3, 0.5, 0.001), "for 20.0 % [10.0, 30.0]: +40.0 points [+30.0, +50.0], paired"),
        (Difference(-0.4, -0.5, -0.3, 0.001), ": -40.0 points [-50.0, -30.0], paired"),
        (Difference(0.1, -0.1, 0.3, 0.4), ": +10.0 points, not told apart from none [-10.0, +30.0], paired"),
    ],
)
def test_headline_says_what_the_numbers_say(gain: Difference, words: str) -> None:
    keys = [("new", "hca", 0.6), ("old", "hca", 0.2), ("old", "leaf", 0.5)]
    scores = Scores(
        {("d", "similar", s, m, None, "all"): Estimate(v, v - 0.1, v + 0.1, 10) for s, m, v in keys}
    )
    labels = {"new": "New", "old": "Old"}
    about = AboutReport(dataset="d", choices="similar", system="new", baseline="old", examples=20)
    content = Content(page_task(about=about), scores, {}, labels)
    first, second = headline(content, gain)
    assert first.startswith("New gets the whole lineage right for 60.0 % [50.0, 70.0]") and words in first
    assert second == "Old gets the leaf right for 50.0 % [40.0, 60.0]."
    absent = page_task(
        about=AboutReport(dataset="d", choices="similar", system="old", baseline="absent", examples=20)
    )
    assert headline(content._replace(task=absent), None) == []


def test_it_says_what_the_jobs_took(read: Reader) -> None:
    assert re.search(r"train\s*1\s*10\.0 min\s*10\.0 min\s*10\.0 min\s*2\.5 GB\s*1\.5\s*0\.167", read.text), (
        read.text
    )


def test_a_shell_that_is_open_on_the_database_does_not_stop_it(page: str) -> None:
    shell = "import duckdb, sys; shell = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    command = [sys.executable, "-c", shell, str(DATABASE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    try:
        write_report(page_task(page=Path("again.html")))
        assert Path("again.html").stat().st_size > 10_000
    finally:
        process.communicate("\n")
