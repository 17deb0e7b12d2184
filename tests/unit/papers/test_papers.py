"""Papers as folders: found by their names, and refused in words where they say what they cannot."""

from pathlib import Path

import pytest
import yaml

from vltaxon.errors import UserError
from vltaxon.papers import cells, papers

HEAD = "table,row,system,dataset,metric,value,source\n"
GIVEN = {
    "title": "A paper",
    "source": "arXiv 0000.00000",
    "roles": {"insect": "terra_known"},
    "tables": {"table1": {"label": "Table 1", "title": "One"}},
    "figures": {"figure1": {"label": "Figure 1", "table": "table1", "drawing": "leaf_and_hca", "note": "n"}},
}


def paper(folder: Path, lines: str = "table1,Base,base,insect,leaf,1.5,here\n", **changes: object) -> Path:
    """Write a paper `mine` into a folder; values that are None are left out."""
    (folder / "mine").mkdir()
    values = {key: value for key, value in (GIVEN | changes).items() if value is not None}
    (folder / "mine/paper.yaml").write_text(yaml.safe_dump(values))
    (folder / "mine/cells.csv").write_text(HEAD + lines)
    return folder


def test_a_folder_is_a_paper(tmp_path: Path) -> None:
    folder = paper(tmp_path, "table1,Base,base,insect,leaf,1.5,here\ntable1,Base,base,insect,hca,,\n")
    assert list(papers(folder)) == ["mine"] and papers(folder)["mine"].aliases is False
    assert [(cell.metric, cell.value) for cell in cells("mine", "table1", folder)] == [
        ("leaf", 1.5),
        ("hca", None),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tables": None}, "tables"),
        ({"roles": {"plant": "x"}}, 'dataset of cells.csv: "insect" is not one of plant'),
        (
            {"lines": "tabel1,B,b,insect,leaf,1,s\n"},
            'table of cells.csv: "tabel1" is not .*Did you mean "table1"',
        ),
        (
            {"figures": {"f": {**GIVEN["figures"]["figure1"], "table": "table2"}}},
            'figures.f.table: "table2" is not',
        ),  # type: ignore[index]
        ({"aliasses": True}, "aliasses"),
    ],
)
def test_a_paper_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        papers(paper(tmp_path, **changes))  # type: ignore[arg-type]
    assert "paper.yaml" in str(error.value)


def test_cells_need_their_columns(tmp_path: Path) -> None:
    (paper(tmp_path) / "mine/cells.csv").write_text("table,row\n")
    with pytest.raises(UserError, match="its columns must be table, row, system, dataset"):
        papers(tmp_path)


def test_two_papers_do_not_share_a_short_name() -> None:
    short = [paper for paper in papers().values() if paper.aliases]
    names = [name for paper in short for name in (*paper.tables, *paper.figures, "paper")]
    assert len(set(names)) == len(names)
