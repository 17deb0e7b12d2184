"""Names as people write them in their labels, each read down to the taxon that it stands for.

Labels are of three sorts: scientific names, vernacular ones ("Black footed Albatross", "Cedar Waxwing") and
arbitrary ones (a synset, an invented name). Only the first have authors and rank markers, and nothing tells
the sorts apart for certain. So a name is shortened on evidence alone: the row's own genus is its first word,
or the text has what only a scientific name has (a year behind a comma, an author's abbreviation, `subsp.`).
What has none is kept as it is written.

The grammar is our own, since no library serves: gnparser's is the best there is, but its package for Python
is a binary for x86 without a licence that frees no memory, and it reads a vernacular name as a scientific one
with an author ("Black footed", "Cedar"); taxon_parser has not been kept since 2018, and left authors on;
GBIF's parser is asked over the net.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from vltaxon.errors import UserError
from vltaxon.taxonomy import normalise, spell_out

if TYPE_CHECKING:
    from vltaxon.config.datasets import RawDataset
    from vltaxon.data.labels import Lineage

# Cells that name no taxon, whatever their case, underscores and final stop: docs/data.md lists them.
MISSING = (
    *(
        "-",
        "--",
        "?",
        "na",
        "n/a",
        "n.a",
        "#n/a",
        "<na>",
        "nan",
        "null",
        "nil",
        "none",
        "missing",
        "not applicable",
    ),
    *("unknown", "unidentified", "undetermined", "indeterminate", "unclassified", "unassigned", "uncultured"),
    *("unspecified", "unranked", "not identified", "not classified", "not assigned", "incertae sedis"),
    *("incertaesedis", "indet", "sp", "spp", "spec", "cf", "aff"),
)
# Of these, words that make a placeholder of a name: "unclassified Bacteria", "Pulmonata incertae sedis".
_PLACEHOLDERS = (
    *("unknown", "unidentified", "undetermined", "unclassified", "unassigned", "uncultured", "incertaesedis"),
    "incertae sedis",
)
_HIGHER = re.compile(
    "domain|(?:super|sub|infra|parv)?(?:kingdom|phylum|division|class|cohort|order|family|tribe|genus|section)"
)
_LOWER = re.compile(
    "subspecies|(?:sub)?variety|(?:sub)?forma?|infraspeci(?:es|fic)|cultivar|breed|race|strain"
)
_SIGN = "\u00d7"  # of a hybrid
_SIGNS = frozenset((_SIGN, "x", "X"))
_OPEN = frozenset(("sp.", "sp", "spp.", "spp", "spec.", "cf.", "cf", "aff.", "aff", "indet.", "indet", "nr."))
_MARKERS = frozenset(
    (
        *("subsp.", "subsp", "ssp.", "ssp", "nothosubsp.", "var.", "var", "nothovar.", "subvar.", "convar."),
        *("f.", "f", "fo.", "forma", "subf.", "nothof."),
    )
)
_PARTS = frozenset(("subg.", "subgen.", "sect.", "subsect.", "ser."))  # of a genus
_NEW = re.compile(r",? (?:(?:sp|comb|gen|stat|nom)\.? nov\.?|n\. ?sp\.?)$")
_LATIN = re.compile(r"(?:[aeio]|us|um|is|os|es|as|ns|or|er|ur|on|en|ar|ps|ys|x)$")
_GENDER = re.compile(r"(?<=\w\w)(?:us|a|um)$")  # of an epithet, as in Ardea alba
_CULTIVAR = re.compile(r" ['\u2018\"].*")
_FAMILIES = re.compile(r".{2,}(?:idae|inae|oidea|aceae|oideae|ales|iformes)")
_KINGDOMS = frozenset(("animalia", "plantae", "fungi", "chromista", "protozoa", "bacteria", "archaea"))
# Names of taxa are in Latin letters, those of their authors in any.
_UPPER, _SMALL = "A-Z\u00c0-\u00d6\u00d8-\u00de", "a-z\u00df-\u00f6\u00f8-\u00ff\u0153"
_GENUS = re.compile(rf"[{_UPPER}][{_SMALL}]+(?:-[{_SMALL}]+)*|[{_UPPER}]\.")
_SUBGENUS = re.compile(rf"\([{_UPPER}][{_SMALL}]+\)")
_EPITHET = re.compile(rf"(?:\d{{1,2}}-)?[{_SMALL}]+(?:[-'\u2019][{_SMALL}]+)*")
_LONE = re.compile(rf"(?:[{_SIGN}xX] ?)?{_EPITHET.pattern}")
_JOINED = frozenset(  # words in lower case that stand among authors
    (
        *("&", "et", "and", "ex", "in", "de", "da", "do", "dos", "du", "del", "della", "der", "den", "des"),
        *("di", "d", "van", "von", "vander", "le", "la", "y", "e", "zu", "zur", "ter", "ten", "'t", "al"),
        *("al.", "apud", "f", "f.", "fil.", "filius", "bis", "auct", "auct.", "sensu", "non", "nec"),
        *("hort", "hort.", "agg", "agg.", "s.l.", "s.str.", "s.s.", "s.", "l.", "str.", "lat.", "lato"),
        *("stricto", "nom.", "nud.", "cons.", "illeg.", "emend."),
    )
)
_AUTHOR = re.compile(r"(?:[dDOo]['\u2019])?[^\W\d_a-z][\w.'\u2019-]*|[dD]['\u2019][^\W\d_][\w.'\u2019-]*")
_YEAR = re.compile(r"\[?(?:1[5-9]|20)\d\d[a-z]?\]?(?:-\d{2,4})?\]?")
_DATED = re.compile(rf"(?:,|\([^()]*) ?{_YEAR.pattern}\)?")
_NO_AUTHORS = frozenset(("St.", "Mt.", "Ft.", "Dr.", "No.", "Jr.", "Sr.", "U.S.", "U.K."))
_DROPPED = re.compile("[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\ufeff]")


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a cell: its level, in what way, the text, and the taxon (None where it is missing)."""

    level: int
    way: str
    written: str
    taxon: str | None


WAYS: Mapping[str, str] = {  # in the order in which they are told
    "missing": "names no taxon and is missing",
    "composed": "composed of genus and epithet",
    "authored": "read without authors and doubts",
    "cut": "cut to its species",
    "spelt": "spelt as the first of its taxon is",
}


def settle(path: "Lineage", dataset: "RawDataset") -> "tuple[Lineage, list[Change]]":
    """Return the taxa that a row names, and what was changed for it.

    Args:
        path: the row's cells, root first.
        dataset: its ranks, and how its names are read: `names`, `missing`, `species`.

    Raises:
        UserError: an epithet without a genus to be composed with.
    """
    return _Row(path, dataset).settle()


def lone(name: str) -> bool:
    """Return whether a name is one word in lower case, as an epithet is."""
    return _LONE.fullmatch(name) is not None


def tidy(name: str) -> str:
    """Return a name composed (NFC), with plain single spaces, and without characters that nobody sees."""
    if name.isascii() and "  " not in name:
        return name.strip()
    return " ".join(unicodedata.normalize("NFC", _DROPPED.sub("", name)).split())


def places(ranks: Sequence[str]) -> tuple[int | None, int]:
    """Return the places of the genus, None where there is none, and of the species: else the last rank."""
    known = {rank.casefold(): place for place, rank in enumerate(ranks)}
    return known.get("genus"), known.get("species", len(ranks) - 1)


class _Row:
    """The cells of a row, on the way to the taxa that they name."""

    def __init__(self, path: "Lineage", dataset: "RawDataset") -> None:
        self.ranks, self.dataset, self.changes = dataset.ranks, dataset, list[Change]()
        self.genus, self.species = places(dataset.ranks)
        self.taxa = list(path)
        self.joined = [False] * len(path)

    def settle(self) -> "tuple[Lineage, list[Change]]":
        parsed = self.dataset.names == "parsed"
        self._clear(parsed)
        if parsed:
            # "Lactuca_virosa_L." is read as with spaces, and is "Lactuca_virosa"
            self.joined = [name is not None and "_" in name and " " not in name for name in self.taxa]
            self.taxa = [
                name.replace("_", " ") if name is not None and joined else name
                for name, joined in zip(self.taxa, self.joined, strict=True)
            ]
            for place in filter(self._uninomial, range(len(self.taxa))):
                self._read_uninomial(place)
        if self.dataset.species == "binomial":
            self._compose()
        if parsed:
            for place in range(self.species, len(self.taxa)):
                if not self._uninomial(place):
                    self._read_binomial(place)
        return tuple(self._joined(place, name) for place, name in enumerate(self.taxa)), self.changes

    def _clear(self, parsed: bool) -> None:
        """Empty the cells that name no taxon, and take what nobody sees out of the others."""
        words = MISSING if self.dataset.missing is None else self.dataset.missing
        missing, placeholders = _missing(words)
        for place, name in enumerate(self.taxa):
            if name is None:
                continue
            key = normalise(name).replace("_", " ").strip()
            if not key or key in missing or (parsed and placeholders.search(key.strip("[]()"))):
                self._change(place, "missing", None)
            elif parsed:
                self._change(place, "spelt", tidy(name))

    def _joined(self, place: int, name: str | None) -> str | None:
        return name.replace(" ", "_") if name is not None and self.joined[place] else name

    def _change(self, place: int, way: str, taxon: str | None) -> None:
        if taxon != self.taxa[place]:
            before, after = self._joined(place, self.taxa[place]), self._joined(place, taxon)
            self.changes.append(Change(place + 1, way, str(before), after))
            self.taxa[place] = taxon

    def _uninomial(self, place: int) -> bool:
        """Return whether a name of the rank is one word; the last rank may be called `class` as of images."""
        rank = self.ranks[place].casefold()
        return place < self.species or (rank != "class" and _HIGHER.fullmatch(rank) is not None)

    def _hint(self) -> str | None:
        """Return the genus of the row as its own column has it."""
        name = None if self.genus is None else self.taxa[self.genus]
        return None if name is None else next((w for w in name.split() if w not in _SIGNS), None)

    def _read_uninomial(self, place: int) -> None:
        name = self.taxa[place]
        if name is None:
            return
        ranked = _HIGHER.fullmatch(self.ranks[place].casefold())
        if ranked and any(word in _OPEN for word in _words(name)):
            self._change(place, "missing", None)
            return
        read = read_uninomial(name) if ranked else None
        if read is None:
            return
        bare, sure = read
        species = self.taxa[self.species] if place == self.genus else None
        named = species is not None and normalise(species.split()[0]) == normalise(bare.split()[-1])
        if sure or named or _FAMILIES.fullmatch(bare):
            self._change(place, "authored", bare)

    def _compose(self) -> None:
        """Put the genus before the species' epithet, and the species before an epithet below it."""
        above = self.genus
        for place in range(self.species, len(self.taxa)):
            name = self.taxa[place]
            first = next((w for w in (name or "").split() if w not in _SIGNS), "").lstrip(_SIGN)
            parent = None if above is None else self.taxa[above]
            whole = parent is not None and normalise(first) == normalise(parent.split()[0])
            if name is not None and first[:1].islower() and not whole:
                if parent is None:
                    raise UserError(
                        f"{self.ranks[place]} {spell_out(name)} has no genus to be composed with; `species: "
                        "binomial` needs a rank `genus` with a taxon in the row"
                    )
                self._change(place, "composed", f"{parent} {name}")
            above = place

    def _read_binomial(self, place: int) -> None:
        name = self.taxa[place]
        if name is None:
            return
        genus = self._hint()
        if genus is not None and normalise(name).startswith(f"{normalise(genus)} "):
            name = name[:1].upper() + name[1:]  # "quercus robur L."
        if undecided(name, genus, self._lower(place)):
            self._change(place, "missing", None)
            return
        read = read_binomial(name)
        if read is None:
            alone, _ = read_uninomial(name) or ("", False)
            if genus is not None and normalise(alone) == normalise(genus):
                self._change(place, "authored", alone)
            return
        known = genus is not None and _same_genus(read.genus, genus)
        if not (known or read.sure):
            return
        if known and genus is not None and read.genus.endswith("."):
            read = read.of(genus)
        bare = read.whole if self._lower(place) else read.species
        if bare == name:
            return
        if bare != read.whole and self._lower(place + 1) and self.taxa[place + 1] is None:
            self.taxa[place + 1], self.joined[place + 1] = read.whole, self.joined[place]
        self._change(place, "authored" if bare == read.whole else "cut", bare)

    def _lower(self, place: int) -> bool:
        """Return whether there is a rank at a place, and it is one below the species."""
        return place < len(self.ranks) and _LOWER.fullmatch(self.ranks[place].casefold()) is not None


@cache
def _missing(words: tuple[str, ...]) -> tuple[frozenset[str], re.Pattern[str]]:
    """Return the keys of cells that name no taxon, and what placeholders begin or end with."""
    keys = frozenset(normalise(word).replace("_", " ") for word in words)
    some = "|".join(word for word in _PLACEHOLDERS if word in keys) or r"(?!)"
    return keys, re.compile(rf"^(?:{some})\b|\b(?:{some})$")


def _words(name: str) -> list[str]:
    return [word.strip("()[],;") for word in name.split()]


def undecided(name: str, genus: str | None, lower: bool = False) -> bool:
    """Return whether a name says that its taxon is not determined: `sp.`, `cf.`, `aff.`, `a/b`, `?`.

    Args:
        name: of a species, or of a taxon below.
        genus: of the row, where it has one.
        lower: whether a taxon below the species is asked for.
    """
    if read_binomial(new := _NEW.sub("", name)) is not None:
        name = new
    words = _words(name)
    marks = [place for place, word in enumerate(words) if word.lstrip("?") in _OPEN]
    if marks:
        first, after = marks[0], words[marks[0] + 1 :]
        # "Larus argentatus cf. smithsonianus" is of the species; only what is below it is not sure
        below = first >= 2 and read_binomial(" ".join(words[:first])) is not None and bool(after)
        return lower or not below
    scientific = genus is not None and bool(words) and _same_genus(words[0], genus)
    doubted = name.endswith("?") or any(word.startswith("?") for word in words)
    return scientific and (doubted or "/" in name or "|" in name or words[1:2] == ["species"])


def _same_genus(word: str, genus: str) -> bool:
    one, two = normalise(word), normalise(genus)
    return one == two or (word.endswith(".") and len(word) == 2 and two.startswith(one))


@dataclass(frozen=True, slots=True)
class Binomial:
    """A scientific name of a species or of a taxon below it.

    Attributes:
        genus: as written, `Q.` for one.
        head: genus with the sign of a hybrid genus, if it is one.
        epithet: of the species, with the sign of a hybrid, if it is one.
        below: what follows of ranks below, each behind its marker.
        sure: whether the text has what no other sort of label has.
    """

    genus: str
    head: str
    epithet: str
    below: str
    sure: bool

    @property
    def species(self) -> str:
        """Return the name of the species, without authors."""
        return f"{self.head} {self.epithet}"

    @property
    def whole(self) -> str:
        """Return the whole name, without authors."""
        return f"{self.species} {self.below}".strip()

    def of(self, genus: str) -> "Binomial":
        """Return the name with its genus in full."""
        return Binomial(genus, self.head.replace(self.genus, genus), self.epithet, self.below, self.sure)


def read_binomial(name: str) -> Binomial | None:
    """Return the parts of what may be a scientific name of a species or below, None where it is none.

    A vernacular name may look like one (`sure` says whether only a scientific name does): the caller has to
    have evidence.
    """
    text = _NEW.sub("", name)
    words = text.split()
    at = 1 if words and words[0] in _SIGNS else 0
    if len(words) < at + 2:
        return None
    genus = words[at].removeprefix(_SIGN)
    if not _GENUS.fullmatch(genus):
        return None
    head, at, sure = " ".join(words[: at + 1]), at + 1, text != name
    if _SUBGENUS.fullmatch(words[at]) and at + 1 < len(words):
        at, sure = at + 1, True
    sign = ""
    if words[at] in _SIGNS and at + 1 < len(words):
        sign, at = words[at] + " ", at + 1
    if not _is_epithet(words[at].removeprefix(_SIGN)):
        return None
    epithet, at = sign + words[at], at + 1
    below, authors, dated = list[str](), list[str](), _DATED.search(text) is not None
    while at < len(words):
        word, following = words[at], words[at + 1] if at + 1 < len(words) else None
        if word in _OPEN - _MARKERS:
            return Binomial(genus, head, epithet, " ".join(below), True)
        if word in _MARKERS and following is not None and _is_epithet(following.removeprefix(_SIGN)):
            below, at, sure = [*below, word, following], at + 2, True
        elif word in _MARKERS and following is None and word not in ("f.", "f"):
            at, sure = at + 1, True
        elif _is_epithet(word) and _LATIN.search(word) and _LATIN.search(epithet):
            below, at = [*below, word], at + 1  # "Canis lupus familiaris", but not "Red fox squirrel"
        elif _is_author(word) or (authors and dated):
            authors, at = [*authors, word], at + 1
        else:
            return None
    return Binomial(genus, head, epithet, " ".join(below), sure or _sure(authors))


def read_uninomial(name: str) -> tuple[str, bool] | None:
    """Return the bare name of a genus or a higher taxon with authors, and whether it is surely one.

    None where there is nothing behind a name in one word, or something else than authors.
    """
    words = name.split()
    at = 1 if words and words[0] in _SIGNS else 0
    if len(words) < at + 2 or not _GENUS.fullmatch(words[at].removeprefix(_SIGN)) or words[at].endswith("."):
        return None
    authors = words[at + 1 :]
    parts = [place for place, word in enumerate(authors) if word in _PARTS]
    if parts:  # "Centaurea L. subg. Jacea"
        authors = authors[: parts[0]]
    if not all(map(_is_author, authors)) or (authors and _JOINED.issuperset(authors)):
        return None
    return " ".join(words[: at + 1]), bool(parts) or _sure(authors)


def _is_epithet(word: str) -> bool:
    return len(word) > 1 and word not in _JOINED and _EPITHET.fullmatch(word) is not None


def _is_author(word: str) -> bool:
    core = word.strip("()[],;:")
    return core in _JOINED or word == "&" or bool(_AUTHOR.fullmatch(core) or _YEAR.fullmatch(core))


def _sure(authors: Sequence[str]) -> bool:
    """Return whether they show to be authors: by a year behind a comma or in brackets, or by a short form."""
    short = any(word.strip("()[],;:&").endswith(".") for word in authors if word not in _NO_AUTHORS)
    return short or _DATED.search(" ".join(authors)) is not None


def find_higher(names: Sequence[str]) -> set[str]:
    """Return which names of a level of species are of a genus, a family, an order or a kingdom instead.

    Only where most names of two words or more look like binomials: among these a name of one word may be the
    genus of others, or end as those of families do.

    Args:
        names: of the level.
    """
    several = [name for name in names if " " in name]
    read = [read for name in several if (read := read_binomial(name)) is not None and latin(read.epithet)]
    if 2 * len(read) <= len(several):
        return set()
    above = {normalise(one.genus) for one in read} | _KINGDOMS
    words = [name for name in names if " " not in name]
    return {name for name in words if normalise(name) in above or _FAMILIES.fullmatch(name)}


def latin(epithet: str) -> bool:
    """Return whether a word ends as Latin epithets do; some words of English do, too."""
    return _LATIN.search(epithet) is not None


def clashes(labels: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield pairs of labels of one level that do not exclude each other, and why.

    Args:
        labels: of the level, spelt in one way each.
    """
    alike: dict[str, str] = {}
    for label in labels:
        key = _looks(label)
        if (other := alike.setdefault(key, label)) != label:
            yield other, label, "look the same"
    keys = {normalise(label.replace("_", " ")): label for label in labels}
    genders: dict[str, str] = {}
    for label in labels:
        read = read_binomial(_CULTIVAR.sub("", label[:1].upper() + label[1:].replace("_", " ")))
        if read is None:
            continue
        short = keys.get(normalise(read.species))
        if short is not None and short != label:
            yield short, label, "seem to be a taxon and the same with its author, or a part of it"
        elif short == label and _GENDER.search(label):
            stem = normalise(_GENDER.sub("", label))
            if (other := genders.setdefault(stem, label)) != label:
                yield other, label, "seem to be one species in two genders"


_LOOK_ALIKES = str.maketrans(  # letters of Cyrillic and Greek that look like Latin ones, dashes, apostrophes
    {
        **dict(
            zip(
                "\u0430\u0435\u0456\u0458\u043e\u0440\u0441\u0443\u0445\u0455\u04bb\u0501\u051b\u051d"
                "\u03b1\u03b9\u03ba\u03bd\u03bf\u03c1",
                "aeijopcyxshdqwaikvop",
                strict=True,
            )
        ),
        **dict.fromkeys("_-\u2010\u2011\u2012\u2013\u2014", " "),
        **dict.fromkeys("`\u00b4\u02bc\u2018\u2019", "'"),
    }
)


def _looks(label: str) -> str:
    """Return a key that labels share which a reader cannot tell apart."""
    key = normalise(label)
    if key.isascii() and "_" not in key and "-" not in key and "`" not in key:
        return key
    return " ".join(unicodedata.normalize("NFKC", key).casefold().translate(_LOOK_ALIKES).split())
