"""Labels of a folder of photos: read from its folders' names, or from a table that lies in it.

Nothing is guessed that cannot be seen in the files it writes: how the labels were read is told, and the table
and the YAML are there to be edited.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vltaxon.data.names import MISSING, latin, lone
from vltaxon.data.tables import rows
from vltaxon.errors import UserError, listed
from vltaxon.taxonomy import normalise

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
PHOTOS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"}
TABLE = ".vltaxon.csv"  # how the tables end that are proposed, which are not read again
SPLITS = {"train": "train", "training": "train", "test": "test", "val": "val", "valid": "val"}
SPLITS |= {"validation": "val"}
# What tables call the path of an image: ours, Hugging Face's `metadata.csv`, and what people write.
_PATHS = ("path", "file_name", "filename", "file", "image", "image_path", "filepath", "photo")
_NAMES = ("species", "scientific_name", "scientificname", "label", "class_name")
_INAT21 = re.compile(r"\d{5}(_[A-Za-z-]+){7}")  # 00000_Animalia_..._Lumbricidae_Lumbricus_terrestris
_BINOMIAL = re.compile(
    r"([A-Za-z][a-z-]+) (?:(?:[x\u00d7]|cf\.?|aff\.?) )?(?:sp|spp|([a-z][a-z-]+))\.?( \S+)*"
)
_NUMBERED = re.compile(r"\d+[._ -]+(?=\D)")  # 001.Black_footed_Albatross
_FIRST_WORD = (
    "which look like scientific names: the genus is their first word (if they are not, say --ranks species)"
)
_ENDINGS = {"order": ("ales", "formes", "ptera"), "family": ("aceae", "idae")}


@dataclass
class Labels:
    """What was read.

    Attributes:
        ranks: names of the levels, root first.
        rows: path from the folder, split, taxa by rank.
        how: in words, where the labels were read.
        left_out: what was not taken, in words.
    """

    ranks: tuple[str, ...]
    rows: list[tuple[str, str, Mapping[str, str]]]
    how: str
    left_out: list[str] = field(default_factory=list)


def read_labels(folder: Path, ranks: Sequence[str] | None) -> Labels:
    """Read the labels of a folder of photos.

    Args:
        folder: with photos in folders that are called like their taxa, or with a CSV that names them.
        ranks: what to call the levels, root first, where the folders or columns do not say it.

    Raises:
        UserError: there are no photos, or no labels that can be understood.
    """
    photos, other = _photos(folder)
    if not photos:
        raise UserError(
            f"{folder}: has no photos ({', '.join(sorted(PHOTOS))})"
            + (f"; it has {_endings(other)}" if other else "")
        )
    tables = sorted(path for path in folder.glob("*.csv") if not path.name.endswith(TABLE))
    if len(tables) > 1:
        raise UserError(
            f"{folder}: has several tables: {listed([path.name for path in tables])}; leave the one there "
            "that names the photos"
        )
    tables = tables or sorted(folder.glob("*/metadata.csv"))  # of each split, as Hugging Face has it
    labels = _of_tables(folder, tables, photos, ranks) if tables else _of_folders(folder, photos, ranks)
    if not labels.rows:
        raise UserError(f"{folder}: no photo has a label: {'; '.join(labels.left_out)}")
    if other:
        labels.left_out.append(f"{len(other)} files that are no photos: {_endings(other)}")
    return labels


def _photos(folder: Path) -> tuple[list[PurePosixPath], list[str]]:
    """Return the photos and the other files of a folder, relative to it; hidden ones are not looked at.

    Links to folders are followed, but into none twice.
    """
    photos: list[PurePosixPath] = []
    other: list[str] = []
    been: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in been:
            folders.clear()
            continue
        been.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            path = PurePosixPath(Path(root, name).relative_to(folder).as_posix())
            if path.suffix.lower() in PHOTOS:
                photos.append(path)
            elif path.suffix.lower() != ".csv":
                other.append(name)
    return photos, other


def _endings(names: Sequence[str]) -> str:
    count = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in names)
    return ", ".join(f"{number} x {ending}" for ending, number in count.most_common(3))


# -- folders --


def _of_folders(folder: Path, photos: Sequence[PurePosixPath], ranks: Sequence[str] | None) -> Labels:
    """Read labels from the names of the folders that photos lie in."""
    splits = {path.parts[0] for path in photos if len(path.parts) > 1 and path.parts[0].lower() in SPLITS}
    split_of = {name: SPLITS[name.lower()] for name in splits}
    placed = [
        (path, split_of.get(path.parts[0], ""), path.parts[path.parts[0] in split_of : -1]) for path in photos
    ]
    depth = Counter(len(names) for _, _, names in placed).most_common(1)[0][0]
    if depth == 0:
        raise UserError(
            f"{folder}: its photos lie in no folders that name them, and it has no table; put those of each "
            "species into a folder called like it, or write a CSV with path and a column per rank"
        )
    taken = [one for one in placed if len(one[2]) == depth]
    left = [str(path) for path, _, names in placed if len(names) != depth]
    paths = {names: tuple(map(_name, names)) for _, _, names in taken}
    levels, taxa_of, how = _levels(folder, paths, depth, ranks)
    labels = Labels(levels, [(str(path), split, taxa_of[names]) for path, split, names in taken], how)
    if left:
        labels.left_out.append(f"{len(left)} photos that lie deeper or less deep than most: {listed(left)}")
    return labels


def _name(folder: str) -> str:
    """Return the name that a folder's name means: without a number before it, spaces for underscores."""
    name = folder if _INAT21.fullmatch(folder) else _NUMBERED.sub("", folder, count=1)
    return " ".join(name.replace("_", " ").split())


def _levels(
    folder: Path, paths: Mapping[tuple[str, ...], tuple[str, ...]], depth: int, ranks: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[tuple[str, ...], dict[str, str]], str]:
    """Return the ranks, the taxa of each path of folders, and how they were read."""
    if depth == 1 and all(_INAT21.fullmatch(names[0]) for names in paths):
        taxa_of = {}
        for names in paths:
            parts = names[0].split("_")[1:]
            taxa_of[names] = dict(zip(RANKS, (*parts[:6], " ".join(parts[5:7])), strict=True))
        return RANKS, taxa_of, "the names of folders, which are iNat21's: number and lineage"
    last = [names[-1] for names in paths.values()]
    two = _are_scientific(last)
    if ranks is None:
        ranks = _named_ranks(list(paths.values()), depth, two)
    if len(ranks) == depth + 1 and ranks[-2] == "genus" and two:
        taxa_of = {
            names: dict(zip(ranks, (*one[:-1], _genus(one[-1]), one[-1]), strict=True))
            for names, one in paths.items()
        }
        return (
            tuple(ranks),
            taxa_of,
            f"the names of folders, {_FIRST_WORD}",
        )
    if len(ranks) != depth:
        raise UserError(
            f"{folder}: photos lie {depth} folders deep, but {len(ranks)} ranks are named: {', '.join(ranks)}"
        )
    taxa_of = {names: dict(zip(ranks, one, strict=True)) for names, one in paths.items()}
    return tuple(ranks), taxa_of, "the names of folders"


def _are_scientific(names: Sequence[str]) -> bool:
    """Whether most names of several words look like a genus and an epithet, and these are not few."""
    some = [name for name in names if normalise(name) not in MISSING]
    several = [name for name in some if " " in name]
    read = [match for name in several if (match := _BINOMIAL.fullmatch(name)) is not None]
    epithets = [match.group(2) for match in read]
    good = sum(epithet is None or latin(epithet) for epithet in epithets)
    return 3 * len(several) >= len(some) and good > 0.75 * len(several)


def _genus(name: str) -> str:
    """Return the first word of a scientific name, empty where it is none."""
    match = _BINOMIAL.match(name)
    return match.group(1).capitalize() if match is not None else ""


def _named_ranks(paths: Sequence[tuple[str, ...]], depth: int, two: bool) -> tuple[str, ...]:
    """Return what to call the levels of folders, by how the names of taxa end."""
    genera = all(lone(path[-1]) or path[-1].startswith(f"{path[-2]} ") for path in paths if depth > 1)
    above: list[str] = []
    for level in range(depth - 1):
        names = [path[level] for path in paths]
        ends = (rank for rank, ends in _ENDINGS.items() if all(name.endswith(ends) for name in names))
        rank = "genus" if level == depth - 2 and genera else next(ends, None)
        above.append(rank or f"group {level + 1}")
    return (*above, "genus", "species") if two and "genus" not in above else (*above, "species")


# -- tables --


def _of_tables(
    folder: Path, tables: Sequence[Path], photos: Sequence[PurePosixPath], ranks: Sequence[str] | None
) -> Labels:
    """Read labels from a CSV, or from one in each split's folder."""
    parts = [_of_table(folder, table, photos, ranks) for table in tables]
    if len({part.ranks for part in parts}) > 1:
        raise UserError(
            f"{folder}: its tables have different ranks: {listed([str(table) for table in tables])}"
        )
    labels = Labels(parts[0].ranks, [row for part in parts for row in part.rows], parts[0].how)
    labels.left_out = [words for part in parts for words in part.left_out]
    taken = {path for path, _, _ in labels.rows}
    if rest := [str(path) for path in photos if str(path) not in taken]:
        labels.left_out.append(f"{len(rest)} photos that no table names: {listed(rest)}")
    return labels


def _of_table(
    folder: Path, table: Path, photos: Sequence[PurePosixPath], ranks: Sequence[str] | None
) -> Labels:
    """Read labels from a CSV: one of ours, Hugging Face's `metadata.csv`, or an export of iNaturalist."""
    lines = list(rows(table, ()))
    if not lines:
        raise UserError(f"{table}: has no rows")
    columns = {name.strip().lower(): name for name in lines[0][1]}
    if len(columns) == 1:  # says what separates the others, if anything does
        list(rows(table, ("path",)))
    rank_of = _rank_columns(columns, ranks)
    if ranks is None and set(rank_of) == {"class"}:  # as people say who sort images, not taxa
        rank_of = {"species": rank_of["class"]}
    named = next((columns[name] for name in _NAMES if name in columns), None)
    if not rank_of and named is None:
        raise UserError(
            f"{table}: has no column of a rank ({', '.join(RANKS)}), nor a name ({', '.join(_NAMES)}); its "
            f"columns are {', '.join(lines[0][1])}. Name the columns that are ranks by --ranks, root first"
        )
    if not rank_of and named is not None:
        rank_of = {"species": named}
    base = PurePosixPath(table.parent.relative_to(folder).as_posix())
    find, how = _finder(table, base, columns, photos)
    split, of_folder = columns.get("split"), SPLITS.get(base.name.lower(), "")
    labels = Labels(_with_genus(rank_of, lines), [], how)
    if len(labels.ranks) > len(rank_of):
        labels.how += f", {_FIRST_WORD}"
    lost: list[str] = []
    binomials = [row[rank_of["species"]] for _, row in lines] if "species" in rank_of else []
    genera = {genus for name in binomials if (genus := _genus(name))}
    for _, row in lines:
        path = find(row)
        if path is None:
            lost.append(next(iter(row.values())))
            continue
        taxa = {rank: row[column] for rank, column in rank_of.items()}
        if "genus" not in rank_of and "genus" in labels.ranks:
            name = taxa["species"]
            taxa["genus"] = name if name in genera else _genus(name)
        part = SPLITS.get(row[split].lower(), row[split]) if split is not None else of_folder
        labels.rows.append((path, part, {rank: taxa[rank] for rank in labels.ranks}))
    if lost:
        labels.left_out.append(f"{len(lost)} rows of {table.name} whose photo is not there: {listed(lost)}")
    return labels


def _rank_columns(columns: Mapping[str, str], ranks: Sequence[str] | None) -> dict[str, str]:
    """Return the columns of ranks, root first: called like them, or like iNaturalist calls them."""
    if ranks is not None:
        if lacking := [rank for rank in ranks if rank.lower() not in columns]:
            raise UserError(
                f"--ranks: there is no column {', '.join(lacking)}; there are {', '.join(columns)}"
            )
        return {rank: columns[rank.lower()] for rank in ranks}
    found: dict[str, str] = {}
    for rank in RANKS:
        for name in (rank, f"taxon_{rank}_name"):
            if name in columns:
                found.setdefault(rank, columns[name])
    return found


def _with_genus(
    rank_of: Mapping[str, str], lines: Sequence[tuple[str, Mapping[str, str]]]
) -> tuple[str, ...]:
    """Return the ranks, with the genus before the species where that is a binomial and no column has it."""
    ranks = tuple(rank_of)
    if "genus" in ranks or "species" not in ranks:
        return ranks
    names = [row[rank_of["species"]] for _, row in lines if row[rank_of["species"]]]
    return (*ranks[:-1], "genus", "species") if _are_scientific(names) else ranks


def _finder(
    table: Path, base: PurePosixPath, columns: Mapping[str, str], photos: Sequence[PurePosixPath]
) -> tuple[Callable[[Mapping[str, str]], str | None], str]:
    """Return a function that finds a row's photo, and how in words."""
    there = {str(path) for path in photos}
    if (name := next((columns[name] for name in _PATHS if name in columns), None)) is not None:
        column = name

        def by_path(row: Mapping[str, str]) -> str | None:
            path = (base / row[column].replace("\\", "/")).as_posix()
            return path if path in there else None

        return by_path, f"{table.name}, whose column {name} has the paths"
    if "id" in columns:
        stems: dict[str, list[str]] = {}
        for path in photos:
            stems.setdefault(path.stem, []).append(str(path))
        number, address = columns["id"], columns.get("image_url")

        def by_id(row: Mapping[str, str]) -> str | None:
            photo = re.search(r"/photos/(\d+)/", row[address]) if address is not None else None
            names = (row[number], photo.group(1) if photo else "")
            found = [path for name in names for path in stems.get(name, ())]
            return found[0] if len(found) == 1 else None

        return by_id, (
            f"{table.name}, an export of iNaturalist; photos are called like observations or by their numbers"
        )
    raise UserError(
        f"{table}: has no column with the path of a photo ({', '.join(_PATHS)}), nor iNaturalist's `id`; its "
        f"columns are {', '.join(columns.values())}"
    )
