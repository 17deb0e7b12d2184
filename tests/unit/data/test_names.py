"""Names as they are written in labels, and the taxa that are read from them.

The slow test generates 100,000: `pytest -m slow tests/unit/data/test_names.py`.
"""

import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vltaxon.config.datasets import RawDataset, Split
from vltaxon.data.names import find_higher, read_binomial, read_uninomial, settle
from vltaxon.errors import UserError
from vltaxon.parsing import read_listing
from vltaxon.prompts import stated
from vltaxon.roundtrip import demand_readable
from vltaxon.taxonomy import find_flaw, normalise
from vltaxon.train.rewards.accuracy import reward

RANKS = ("family", "genus", "species")


def _dataset(ranks: tuple[str, ...] = RANKS, **how: Any) -> RawDataset:
    return RawDataset(source="folder", ranks=ranks, test=Split(table=Path("t.csv")), **how)


PARSED = _dataset()


@pytest.mark.parametrize(
    ("name", "taxon"),
    [
        ("Quercus robur", "Quercus robur"),
        ("Quercus robur L.", "Quercus robur"),
        ("Quercus robur Linnaeus", "Quercus robur"),
        ("Quercus robur L., 1753", "Quercus robur"),
        ("Quercus robur (Mill.) Desv. ex L\u00f6ve & d'Urv.", "Quercus robur"),
        ("Quercus robur van der Hammen, 1980", "Quercus robur"),
        ("Quercus robur L.f.", "Quercus robur"),
        ("Quercus robur L. f.", "Quercus robur"),
        ("Quercus robur \u0410\u043d\u0434\u0440\u0435\u0435\u0432, 1901", "Quercus robur"),
        ("Q. robur", "Quercus robur"),
        ("Quercus (Cerris) robur L.", "Quercus robur"),
        ("Quercus robur subsp. robur", "Quercus robur"),
        ("Quercus robur L. subsp. brutia (Ten.) O.Schwarz", "Quercus robur"),
        ("Quercus robur f. fastigiata (Lam.) Schwarz", "Quercus robur"),
        ("Quercus robur var. x", "Quercus robur var. x"),
        ("Quercus robur brutia", "Quercus robur"),
        ("Quercus robur L. brutia Thell.", "Quercus robur"),
        ("Quercus yellow flag", "Quercus yellow flag"),
        ("Quercus robur ssp.", "Quercus robur"),
        ("Quercus robur s.l.", "Quercus robur"),
        ("Quercus robur agg.", "Quercus robur"),
        ("Quercus robur cf. brutia", "Quercus robur"),
        ("Quercus robur sp. nov.", "Quercus robur"),
        ("Quercus \u00d7 rosacea", "Quercus \u00d7 rosacea"),
        ("Quercus x rosacea Bechst.", "Quercus x rosacea"),
        ("Quercus \u00d7rosacea", "Quercus \u00d7rosacea"),
        ("Quercus robur \u00d7 Quercus petraea", "Quercus robur \u00d7 Quercus petraea"),
        ("Quercus robur 'Concordia'", "Quercus robur 'Concordia'"),
        ("Quercus 7-lobata", "Quercus 7-lobata"),
        ("Quercus", "Quercus"),
        ("Quercus L.", "Quercus"),
        ("Quercus_robur_L.", "Quercus_robur"),
        ("Quercus_robur", "Quercus_robur"),
        ("Quercus_sp.", None),
        ("Quercus sp.", None),
        ("Quercus sp", None),
        ("Quercus sp. 1", None),
        ("Quercus sp. BOLD:AAA1234", None),
        ("Quercus sp. nov.", None),
        ("Quercus spp.", None),
        ("Quercus cf. robur", None),
        ("Quercus cf robur L.", None),
        ("cf. Quercus robur", None),
        ("Quercus aff. robur L.", None),
        ("Quercus indet.", None),
        ("Quercus species", None),
        ("Quercus robur?", None),
        ("Quercus robur/petraea", None),
        ("Quercus robur|Quercus petraea", None),
        ("unclassified Quercus", None),
        ("Quercus incertae sedis", None),
        ("IncertaeSedis justi", None),
        ("[unassigned] Quercus", None),
        ("Quercus_unidentified", None),
        # of another genus there is no evidence but in the name itself
        ("Passer domesticus Linnaeus", "Passer domesticus Linnaeus"),
        ("Passer domesticus (Linnaeus, 1758)", "Passer domesticus"),
        ("Passer domesticus L.", "Passer domesticus"),
        ("Canis lupus familiaris", "Canis lupus familiaris"),
        # vernacular and arbitrary names
        ("Black footed Albatross", "Black footed Albatross"),
        ("Black footed albatross", "Black footed albatross"),
        ("Cedar Waxwing", "Cedar Waxwing"),
        ("Common Yellowthroat", "Common Yellowthroat"),
        ("Northern Cardinal (Adult Male)", "Northern Cardinal (Adult Male)"),
        ("House sparrow (Male)", "House sparrow (Male)"),
        ("Le Conte's Sparrow", "Le Conte's Sparrow"),
        ("St. Lucia Parrot", "St. Lucia Parrot"),
        ("kite (bird of prey)", "kite (bird of prey)"),
        ("Fender stratocaster Squier 1962", "Fender stratocaster Squier 1962"),
        ("chair", "chair"),
        ("a__b_", "a__b_"),
        ("\u767d\u3044 \u30d0\u30e9 \u82b1", "\u767d\u3044 \u30d0\u30e9 \u82b1"),
    ],
)
def test_what_is_read_of_a_species(name: str, taxon: str | None) -> None:
    path, changes = settle(("Fagaceae", "Quercus", name), PARSED)
    assert path == ("Fagaceae", "Quercus", taxon)
    assert [(change.written, change.taxon) for change in changes] == (
        [] if taxon == name else [(name, taxon)]
    )
    assert settle(("Fagaceae", "Quercus", name), _dataset(names="as_written", missing=()))[0][2] == name


@pytest.mark.parametrize(
    ("rank", "name", "taxon"),
    [
        ("genus", "Quercus L.", "Quercus"),
        ("genus", "Quercus L., 1753", "Quercus"),
        ("genus", "\u00d7 Festulolium Asch. & Graebn.", "\u00d7 Festulolium"),
        ("genus", "Quercus Linnaeus", "Quercus Linnaeus"),
        ("family", "Fagaceae Dumort.", "Fagaceae"),
        ("family", "Poaceae Barnhart", "Poaceae"),
        ("family", "Corvidae Leach, 1820", "Corvidae"),
        ("family", "Old World Flycatchers", "Old World Flycatchers"),
        ("family", "Boeing 737", "Boeing 737"),
        ("family", "Corvidae indet.", None),
        ("genus", "Centaurea L. subg. Jacea", "Centaurea"),
        ("genus", "Helicopsyche von Siebold, 1856", "Helicopsyche"),
        ("genus", "Cheilolejeunea (Spruce) Steph.", "Cheilolejeunea"),
        ("genus", "Hormosira (Endlichter) Meneghini, 1838", "Hormosira"),
        ("make", "Suzuki L., 2012", "Suzuki L., 2012"),
        ("make", "Cessna cf", "Cessna cf"),
    ],
)
def test_what_is_read_of_a_higher_rank(rank: str, name: str, taxon: str | None) -> None:
    assert settle((name, "Thing"), _dataset((rank, "kind")))[0] == (taxon, "Thing")


def test_the_genus_of_the_species_is_evidence_for_the_column_of_genera() -> None:
    assert settle(("Corvidae", "Corvus Linnaeus", "Corvus corax Linnaeus"), PARSED)[0] == (
        "Corvidae",
        "Corvus",
        "Corvus corax",
    )


GENERA = "Quercus Parus Larus Bombus Isoetes Isoëtes Rosa Aus Coccinella Zelkova Müllerina Salix".split()  # noqa: SIM905
EPITHETS = "robur major canina o-brienii capillus-veneris 7-punctata müelleri alba graëllsii c-album o'neillii".split()  # noqa: SIM905
AUTHORS = [
    "L.",
    "Linnaeus",
    "Mill.",
    "DC.",
    "A.DC.",
    "(L.)",
    "(Mill.)",
    "Löve",
    "d'Orbigny",
    "d'Urv.",
    "O'Brien",
    "McCoy",
    "Hook.f.",
    "L.f.",
    "G.M.Barroso",
    "Åkerström",
    "Андреев",
    "王",
    "Müll.Arg.",
    "Lamb-Smith",
    "Régimbart",
    "Schrödinger",
    "T.Harris",
]
JOINS = (" & ", " et ", " ex ", " in ", ", ", " and ")
MARKS = "subsp. ssp. subsp var. f. forma nothosubsp. subvar.".split()  # noqa: SIM905
OPEN = "sp. spp. sp cf. aff. indet.".split()  # noqa: SIM905
NOISE = ["\u00ad", "\u200b", "\u00a0", "\u0301", "\ufe0f", "\u3164", "\u202e", "\0", "\n", "(", ")", ";", "->", ",", ":", " species: ", "<image>", "'", '"', "\u00d7", "x", "&", "1758", "é", "Ж", "ß", "İ", "…"]  # fmt: skip


def _authors(draw: random.Random) -> str:
    names = [draw.choice(AUTHORS)]
    while draw.random() < 0.3:
        names += [draw.choice(JOINS), draw.choice(AUTHORS)]
    text = "".join(names)
    if draw.random() < 0.4:
        text += f", {draw.randint(1753, 2024)}" + draw.choice(("", "", "a"))
    return f"({text})" if draw.random() < 0.3 and "(" not in text else text


def _name(draw: random.Random) -> tuple[str, str, str | None]:
    """Return a genus, a name in real style, and the species that it is of; None where it is not determined."""
    genus, epithet = draw.choice(GENERA), draw.choice(EPITHETS)
    kind = draw.random()
    if kind < 0.1:
        return genus, f"{genus} {draw.choice(OPEN)}" + draw.choice(("", f" {epithet}", " 1", " A")), None
    sign = draw.choice(("\u00d7 ", "x ", "\u00d7")) if kind < 0.25 else ""
    species = f"{genus} {sign}{epithet}"
    text = species if draw.random() < 0.9 else f"{genus} ({draw.choice(GENERA)}) {sign}{epithet}"
    if draw.random() < 0.6:
        text += f" {_authors(draw)}"
    if draw.random() < 0.3:
        text += f" {draw.choice(MARKS)} {draw.choice(EPITHETS)}"
        if draw.random() < 0.4:
            text += f" {_authors(draw)}"
    return genus, text, species


def _spoilt(name: str, draw: random.Random) -> str:
    for _ in range(draw.randint(1, 4)):
        at = draw.randint(0, len(name))
        name = name[:at] + draw.choice(NOISE) + name[at + draw.randint(0, 2) :]
    return name


def _readable(path: tuple[str | None, ...]) -> bool:
    """Return whether a lineage is not refused; then what a model writes of it is read back, and rewarded."""
    try:
        demand_readable({"leaf": path}, RANKS)
    except UserError:
        return False
    leaf = next(taxon for taxon in reversed(path) if taxon is not None)
    text = stated(RANKS, path)
    odd = {normalise(taxon) for taxon in path if taxon is not None}
    listed, lineage = read_listing(text, RANKS, odd=odd)
    assert normalise(listed.answer or "") == normalise(leaf), path
    assert [n and normalise(n) for n in lineage] == [n and normalise(n) for n in path]
    return True


def _try(number: int) -> None:
    draw, read, refused = random.Random(number), 0, 0
    for _ in range(number):
        genus, text, species = _name(draw)
        path, changes = settle(("Aaceae", genus, text), PARSED)
        assert path == ("Aaceae", genus, species), (text, changes)
        assert _readable(path), path
        for dataset in (PARSED, _dataset(names="as_written")):
            given = (None, draw.choice((genus, None)), _spoilt(text, draw))
            once, _ = settle(given, dataset)
            again, more = settle(once, dataset)
            assert (again, more) == (once, []), (given, once, more)
            flawed = any(taxon is not None and find_flaw(taxon) is not None for taxon in once)
            if any(once) and not flawed:
                read, refused = read + _readable(once), refused + 1
    assert read > 0.5 * number


def test_names_of_real_style_are_read_and_read_back_or_refused() -> None:
    _try(1_500)


@pytest.mark.slow
def test_many_names_of_real_style_are_read_and_read_back_or_refused() -> None:
    _try(100_000)


@pytest.mark.parametrize(
    "name",
    ["Parus major Linnaeus, 1758", "Jay, Blue", "Rosa; or not", "A -> B", "Accentor (Dunnock); a bird"],
)
def test_a_perfect_listing_of_an_odd_name_is_rewarded(name: str) -> None:
    path = ("Paridae", "Parus", name)
    assert settle(path, _dataset(names="as_written"))[0] == path
    assert _readable(path)
    said = [[{"role": "assistant", "content": stated(RANKS, path)}]]
    columns = {
        "task": ["leaf"],
        "form": ["listing"],
        "ranks": [RANKS],
        "options": [()],
        "answer_index": [None],
    }
    assert reward(said, leaf=[name], finish_reason=["stop"], **columns) == [1.0]  # type: ignore[arg-type]


def test_epithets_need_a_rank_of_genera() -> None:
    with pytest.raises(
        ValidationError, match="species: binomial puts the genus before an epithet, but no rank of"
    ):
        _dataset(("family", "species"), species="binomial")
    _dataset(("family", "Genus", "species"), species="binomial")


@pytest.mark.parametrize(
    ("genus", "name", "taxon"),
    [
        ("Lepetodrilus", "Lepetodrilus aff. schrolli L.Beck", None),  # gbif/pipelines #496
        ("Amaranthus", "Amaranthus albus L.", "Amaranthus albus"),  # gbif/checklistbank #3
        ("Amaranthus", "Amaranthus albus L. monosepalus Thell.", "Amaranthus albus"),
        ("X", "IncertaeSedis justi", None),  # gbif/name-parser #64
        ("Nemopistha", "Nemopistha sinica C.-k. Yang, 1986", "Nemopistha sinica"),  # gbif/name-parser #80
        ("Probolomyrmex", "Probolomyrmex Mayr, 1901", "Probolomyrmex"),  # gbif/occurrence #109
        ("Linaria", "Linaria vulgaris agg.", "Linaria vulgaris"),  # gbif/portal-feedback #1510
        ("Lutzomyia", "Lutzomyia (Helcocyrtomyia) osornoi (Ristorcelli & Van ty, 1941)", "Lutzomyia osornoi"),
        # CatalogueOfLife/backend #788 above; OpenTreeOfLife/opentree #57 and reference-taxonomy #314
        ("Culex", "Culex sp.", None),
        (None, "[unassigned] Pulmonata", None),
        ("Python", "Python bivittatus ssp. bivittatus", "Python bivittatus"),  # EDIorg/EMLassemblyline #137
        ("Cercocarpus", "Cercocarpus ledifolius intricatus", "Cercocarpus ledifolius"),
        ("Silene", "Silene otites ssp. pseudo-otites", "Silene otites"),  # ropensci/taxize #451
        (None, "Lactuca virosa Habl.", "Lactuca virosa"),  # plantnet/PlantNet-300K #6
        (None, "Pelargonium_zonale_(L.)_L'H\u00e9r.", "Pelargonium_zonale"),
        (None, "unclassified Veilonellaceae", None),  # wejlab/animalcules #39
    ],
)
def test_names_of_public_reports(genus: str | None, name: str, taxon: str | None) -> None:
    assert settle(("Aaceae", genus, name), PARSED)[0] == ("Aaceae", genus, taxon)


def test_reading_takes_linear_time() -> None:
    for text in ("Aus bus " + "(a " * 50_000, "Aus bus " + "subsp. " * 50_000, "Aus " + "L., " * 50_000):
        read_binomial(text)
        read_uninomial(text)


def test_names_of_ranks_above_are_found_among_species() -> None:
    species = ["Quercus robur", "Quercus petraea", "Fagus sylvatica"]
    assert find_higher([*species, "Quercus", "Fagaceae", "Plantae", "Bellis"]) == {
        "Quercus",
        "Fagaceae",
        "Plantae",
    }
    vernacular = ["Red fox", "Fox", "House sparrow", "Sparrow", "Cardinal", "Green"]
    assert find_higher(vernacular) == set()
