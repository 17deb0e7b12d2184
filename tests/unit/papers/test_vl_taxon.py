"""The published numbers, by the relations that the paper states between its tables."""

import re

import pytest

from vltaxon.papers import cells, papers

PAPER = papers()["vl_taxon"]
CELLS = [cell for table in PAPER.tables for cell in cells("vl_taxon", table)]
VALUE = {(c.table, c.system, c.dataset, c.metric): c.value for c in CELLS}


def test_each_cell_stands_once_and_in_a_whole_table() -> None:
    assert len(VALUE) == len(CELLS) and list(dict.fromkeys(c.table for c in CELLS)) == list(PAPER.tables)
    assert {figure.table for figure in PAPER.figures.values()} <= set(PAPER.tables)
    for table in PAPER.tables:
        mine = cells("vl_taxon", table)
        rows, columns = {(c.row, c.system) for c in mine}, {(c.dataset, c.metric) for c in mine}
        assert len(mine) == len(rows) * len(columns) and {c.dataset for c in mine} <= set(PAPER.roles)
        assert len({row for row, _ in rows}) == len(rows)


def test_a_number_has_a_source_and_a_gap_has_none() -> None:
    for cell in CELLS:
        assert (cell.value is None) == (cell.source == ""), cell
        assert cell.value is None or 0 <= cell.value <= 100 or cell.metric == "completion_tokens"
        assert not cell.source or re.match(r"arXiv \d{4}\.\d{5}", cell.source)


@pytest.mark.parametrize("role", PAPER.roles)
def test_hca_is_hca_given_leaf_times_leaf(role: str) -> None:
    """Table 5 against Table 1 (base and SFT, which it has for animals and plants) and Table 3 (VL-Taxon)."""
    checked = 0
    for table, system in (("table1", "base"), ("table1", "default_sft"), ("table3", "vl_taxon")):
        hca = VALUE.get((table, system, role, "hca"))
        given, leaf = VALUE["table5", system, role, "hca_given_leaf"], VALUE["table5", system, role, "leaf"]
        if hca is not None and given is not None:
            assert given * (leaf or 0) / 100 == pytest.approx(hca, abs=0.02)
            assert leaf == VALUE[table, system, role, "leaf"]
            checked += 1
    assert checked == (1 if role == "bird" else 3)


@pytest.mark.parametrize("role", PAPER.roles)
@pytest.mark.parametrize("metric", ["hca", "leaf"])
def test_vl_taxon_is_the_same_in_all_tables_and_best_in_hca(role: str, metric: str) -> None:
    """The hybrid of Table 6 and the last rows of Tables 4 and 5 are VL-Taxon of Table 3."""
    tables = ["table4", "table6"] + (["table5"] if metric == "leaf" else [])
    assert {VALUE[table, "vl_taxon", role, metric] for table in tables} == {
        VALUE["table3", "vl_taxon", role, metric]
    }
    for system in ("vl_taxon_no_reasoning", "vl_taxon_no_first_stage"):
        assert (VALUE["table4", system, role, "hca"] or 0) < (VALUE["table4", "vl_taxon", role, "hca"] or 0)


def test_no_hca_is_above_its_leaf() -> None:
    for (table, system, role, metric), value in VALUE.items():
        for part, whole in (("hca", "leaf"), ("open_lineage", "open_leaf")):
            if (
                metric == part
                and value is not None
                and (other := VALUE[table, system, role, whole]) is not None
            ):
                assert value <= other
    # the gain on plants that the paper calls "45% relative" is of absolute points
    assert (VALUE["table3", "vl_taxon", "plant", "hca"] or 0) - (
        VALUE["table3", "base", "plant", "hca"] or 0
    ) == pytest.approx(45.37)
