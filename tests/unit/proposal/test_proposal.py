"""Folders of photos as people have them: what is read from them, and what is proposed."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.data.photos import SPECIES, draw_photos, write_table
from vltaxon.__main__ import main
from vltaxon.config.load import load
from vltaxon.errors import UserError
from vltaxon.proposal.labels import read_labels

ROOT = Path(__file__).parents[3]
Photos = Callable[..., Path]


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the config, with the base checkpoint that it names, as the working directory."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "src").symlink_to(ROOT / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(workflow: Path) -> Photos:
    """Put a photo, each of another size, at each path of a folder; text at paths of other endings."""
    number = iter(range(1, 256))

    def put(*paths: str, **texts: str) -> Path:
        for path in paths:
            file = workflow / "photos" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + next(number), 30)).save(file)
        for name, text in texts.items():
            (workflow / "photos" / f"{name}.csv").write_text(text, encoding="utf-8")
        return workflow / "photos"

    return put


def read(folder: Path, ranks: str | None = None) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The ranks, and of each photo split and taxa."""
    labels = read_labels(folder, ranks.split(",") if ranks else None)
    return labels.ranks, {path: (split, *taxa.values()) for path, split, taxa in labels.rows}


def test_folders_of_scientific_names_have_a_genus(photos: Photos) -> None:
    folder = photos("Quercus_robur/1.JPG", "Quercus robur subsp. robur/1.jpg", "Fagus_sylvatica/a/b.txt.jpg")
    ranks, rows = read(photos("Rosa_canina/1.png", "Rosa_canina/2.png"))
    assert ranks == ("genus", "species")
    assert rows["Quercus_robur/1.JPG"] == ("", "Quercus", "Quercus robur")
    assert rows["Quercus robur subsp. robur/1.jpg"] == ("", "Quercus", "Quercus robur subsp. robur")
    left = read_labels(folder, None).left_out
    assert left == ["1 photos that lie deeper or less deep than most: Fagus_sylvatica/a/b.txt.jpg"]


def test_folders_of_other_names_are_what_they_are_called(photos: Photos) -> None:
    folder = photos("001.Black_footed_Albatross/1.jpg", "002.Laysan_Albatross/1.jpg", "003.Cardinal/1.jpg")
    assert read(folder) == (
        ("species",),
        {
            "001.Black_footed_Albatross/1.jpg": ("", "Black footed Albatross"),
            "002.Laysan_Albatross/1.jpg": ("", "Laysan Albatross"),
            "003.Cardinal/1.jpg": ("", "Cardinal"),
        },
    )


def test_folders_of_inat21_have_the_whole_lineage(photos: Photos) -> None:
    names = [
        "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
        "05700_Plantae_Tracheophyta_Liliopsida_Poales_Poaceae_Poa_annua",
    ]
    ranks, rows = read(photos(*(f"{name}/1.jpg" for name in names)))
    assert ranks == ("kingdom", "phylum", "class", "order", "family", "genus", "species")
    assert rows[f"{names[1]}/1.jpg"] == ("", *names[1].split("_")[1:7], "Poa annua")


def test_folders_within_folders_are_ranks(photos: Photos) -> None:
    folder = photos("train/Rosaceae/Rosa/Rosa canina/1.jpg", "val/Rosaceae/Rubus/Rubus idaeus/1.jpg")
    assert read(folder) == (
        ("family", "genus", "species"),
        {
            "train/Rosaceae/Rosa/Rosa canina/1.jpg": ("train", "Rosaceae", "Rosa", "Rosa canina"),
            "val/Rosaceae/Rubus/Rubus idaeus/1.jpg": ("val", "Rosaceae", "Rubus", "Rubus idaeus"),
        },
    )
    assert read(folder, "tribe,sort,kind")[0] == ("tribe", "sort", "kind")
    with pytest.raises(UserError, match="3 folders deep, but 2 ranks are named: a, b"):
        read(folder, "a,b")


def test_photos_of_nothing_named_are_left_out_and_names_are_read(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Quercus_robur", "quercus_robur_L.", "Quercus_sp", "Quercus_cf._petraea", "Fagus_sylvatica")
    photos(*(f"{name}/1.jpg" for name in names), "unknown/1.jpg")
    assert main(["new", "mine", "photos"]) == 0
    said = capsys.readouterr().out
    assert "Left out: 1 photos whose labels name no taxon: unknown." in said
    assert "| genus | 2 | 0 |\n| species | 2 | 2 |" in said
    assert '1 x "Quercus cf. petraea"' in said


def test_epithets_are_asked_about_and_the_answer_can_be_given(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    photos("Rosa/alba/1.jpg", "Tyto/alba/1.jpg", "Tyto/capensis/1.jpg")
    assert main(["new", "mine", "photos"]) == 1
    said = capsys.readouterr().err
    assert "species: binomial" in said and "--set KEY=VALUE" in said
    assert main(["new", "mine", "photos", "--set", "species=binomial"]) == 0
    assert load(Path("config/mine.yaml")).datasets["mine"].species == "binomial"
    assert "| species | 3 | 0 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("header", "row", "ranks"),
    [
        ("path,family,species", "a/1.jpg,Rosaceae,Rosa canina", ("family", "genus", "species")),
        ("file_name,Family,Genus,Species", "a/1.jpg,Rosaceae,Rosa,Rosa canina", ("family", "genus", "species")),
        ("file_name,label", "a/1.jpg,Rosa canina", ("genus", "species")),
        ("file_name,label", "a\\1.jpg,Dog Rose", ("species",)),
        (
            "id,image_url,scientific_name,taxon_family_name,taxon_genus_name,taxon_species_name",
            "7,https://example.org/photos/1/medium.jpg,Rosa canina,Rosaceae,Rosa,Rosa canina",
            ("family", "genus", "species"),
        ),
    ],
)  # fmt: skip
def test_tables(photos: Photos, header: str, row: str, ranks: tuple[str, ...]) -> None:
    """Ours, Hugging Face's, and iNaturalist's export, whose photos are called by their numbers."""
    folder = photos("a/1.jpg", "a/2.jpg", metadata=f"{header}\n{row}\n{row.replace('1', '9')}\n")
    labels = read_labels(folder, None)
    assert labels.ranks == ranks
    [(path, _, taxa)] = labels.rows
    assert (path, taxa["species"]) == ("a/1.jpg", "Dog Rose" if len(ranks) == 1 else "Rosa canina")
    assert labels.left_out[0].startswith("1 rows of metadata.csv whose photo is not there")
    assert labels.left_out[1] == "1 photos that no table names: a/2.jpg"


@pytest.mark.parametrize(
    ("paths", "tables", "words"),
    [
        ((), {}, "no such folder"),
        (("1.jpg",), {}, "its photos lie in no folders that name them, and it has no table"),
        (("a/1.jpg",), {"one": "path\n", "two": "path\n"}, "has several tables: one.csv, two.csv"),
        (("a/1.jpg",), {"t": "path,what\na/1.jpg,b\n"}, "no column of a rank"),
        (("a/1.jpg",), {"t": "path;species\na/1.jpg;b\n"}, "separated by semicolons"),
        (("a/1.jpg",), {"t": "where,species\na/1.jpg,b\n"}, "no column with the path of a photo"),
        (("a/1.jpg",), {"t": "path,species\nb/1.jpg,b\n"}, "no photo has a label: 1 rows of t.csv whose"),
        (("a/1.jpg", "a/2.jpg"), {}, "every level has one label only"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    photos: Photos, capsys: pytest.CaptureFixture[str], paths: tuple[str, ...], tables: dict[str, str], words: str
) -> None:  # fmt: skip
    folder = photos(*paths, **tables) if paths else Path("nowhere")
    assert main(["new", "mine", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "error: " in said and words in said and "Traceback" not in said
    assert not list(Path().rglob("mine.*"))


def test_what_is_proposed_is_valid_and_says_what_was_understood(
    workflow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photos(workflow / "photos")
    (workflow / "photos/Rosa_canina/0.jpg").write_bytes(b"no photo")
    (workflow / "photos/notes.docx").write_text("x")
    assert main(["new", "mine", "photos"]) == 0
    said = capsys.readouterr().out
    assert "| genus | 5 | 0 |" in said and "| species | 6 | 0 |" in said
    assert "Usable: 23 photos of 6 taxa in test." in said
    assert "left out: Rosa_canina/0.jpg: " in said
    assert "Left out: 1 files that are no photos: 1 x .docx." in said
    experiment = load(Path("config/mine.yaml"))
    assert experiment.config.training is None
    assert experiment.datasets["mine"].scored_levels == (1, 2)
    assert experiment.datasets["mine"].max_rejected >= 1 / 24
    size = experiment.datasets["mine"].size
    assert size is not None and (size.leaves, size.test, size.pixels) == (6, 23, 160 * 120)


def test_nothing_is_overwritten(workflow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_photos(workflow / "photos")
    for path in ("config/mine.yaml", "config/datasets/mine.yaml", "photos/mine.vltaxon.csv"):
        Path(path).write_text("mine")
        assert main(["new", "mine", "photos"]) == 1
        assert f"error: {path}: already there" in capsys.readouterr().err
        assert Path(path).read_text() == "mine"
        Path(path).unlink()


def test_a_share_of_each_species_is_learnt_from(workflow: Path) -> None:
    draw_photos(workflow / "photos")
    assert main(["new", "mine", "photos", "--train", "0.5"]) == 0
    experiment = load(Path("config/mine.yaml"))
    assert experiment.training.partition.held_out == 1
    assert set(experiment.config.systems) == {"zero_shot", "direct", "vl_taxon", "chance"}
    rows = [line.split(",") for line in Path("photos/mine.vltaxon.csv").read_text().splitlines()[1:]]
    for species in SPECIES:
        assert sorted(row[-1] for row in rows if row[2] == species) == ["test", "test", "train", "train"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--set", "foo=1"], "error: --set: foo: unknown key; legal is"),
        (["--set", "foo"], 'error: --set: "foo" is no KEY=VALUE'),
        (["--train", "1.5"], "error: --train: "),
        (["--model", "qwen"], 'error: --model: "qwen" is not one of bioclip2, '),
        (
            ["--model", "tiny_siglip"],
            "error: --model: tiny_siglip is of engine zero_shot, needed is one of server",
        ),
        (
            ["--encoder", "tiny_vlm"],
            "error: --encoder: tiny_vlm is of engine transformers, needed is one of zero",
        ),
    ],
)
def test_what_is_said_wrongly_is_named(
    workflow: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    draw_photos(workflow / "photos")
    assert main(["new", "mine", "photos", *given]) == 1
    assert words in capsys.readouterr().err
    assert not list(Path().rglob("mine.*"))


def test_too_few_to_learn_from_is_told_and_not_trained(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    photos(
        *(f"{split}/{name}/1.jpg" for split in ("train", "test") for name in ("Aa bus", "Cc dus", "Ee fus"))
    )
    assert main(["new", "mine", "photos"]) == 0
    assert load(Path("config/mine.yaml")).config.training is None
    assert "Left out: the training, since its sft step has too little" in capsys.readouterr().out


def test_a_whole_rank_s_names_among_species_are_of_no_species(photos: Photos) -> None:
    names = ("Quercus robur", "Quercus petraea", "Fagus sylvatica", "Quercus", "Fagaceae", "Plantae")
    table = "file_name,scientific_name\n" + "".join(f"{i}.jpg,{name}\n" for i, name in enumerate(names))
    photos(*(f"{i}.jpg" for i in range(len(names))), metadata=table)
    assert main(["new", "mine", "photos"]) == 0
    lines = Path("photos/mine.vltaxon.csv").read_text().splitlines()
    assert "3.jpg,Quercus,Quercus" in lines and not any(
        "Plantae" in line or "Fagaceae" in line for line in lines
    )


def test_a_table_in_each_split_s_folder(photos: Photos) -> None:
    folder = photos("train/1.jpg", "train/2.jpg", "test/1.jpg")
    for split, names in {"train": ("Rosa canina", "Rubus idaeus"), "test": ("Rosa canina",)}.items():
        rows = "".join(f"{i}.jpg,{name}\n" for i, name in enumerate(names, start=1))
        (folder / split / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert read(folder)[1] == {
        "train/1.jpg": ("train", "Rosa", "Rosa canina"),
        "train/2.jpg": ("train", "Rubus", "Rubus idaeus"),
        "test/1.jpg": ("test", "Rosa", "Rosa canina"),
    }


def test_folders_that_are_linked_are_looked_into(photos: Photos, tmp_path: Path) -> None:
    folder = photos("Rosa canina/1.jpg")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (50, 60)).save(tmp_path / "elsewhere/1.jpg")
    (folder / "Rubus idaeus").symlink_to(tmp_path / "elsewhere")
    (folder / "Rosa canina/loop").symlink_to(folder)
    assert set(read(folder)[1]) == {"Rosa canina/1.jpg", "Rubus idaeus/1.jpg"}


def test_vernacular_names_have_no_genus(photos: Photos) -> None:
    names = ("Blue_tit", "Great_tit", "House_sparrow", "Red_fox")
    assert read(photos(*(f"{name}/1.jpg" for name in names)))[0] == ("species",)
    assert read(photos(a="filename,class\n" + "".join(f"{n}/1.jpg,Rosa canina\n" for n in names)))[0] == (
        "genus",
        "species",
    )


def test_another_is_proposed_for_the_same_photos(workflow: Path) -> None:
    draw_photos(workflow / "photos")
    for name in ("one", "two", "three"):
        assert main(["new", name, "photos", "--ranks", "species"]) == 0
        assert load(Path(f"config/{name}.yaml")).datasets[name].ranks == ("species",)


def test_a_folder_that_may_not_be_written(workflow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_photos(workflow / "photos")
    (workflow / "photos").chmod(0o500)
    try:
        status = main(["new", "mine", "photos"])
    finally:
        (workflow / "photos").chmod(0o700)
    said = capsys.readouterr()
    assert status == 0 or "error: " in said.err  # root may write everywhere
    assert "Traceback" not in said.err


def test_a_table_of_ours_with_every_rank(workflow: Path) -> None:
    draw_photos(workflow / "photos")
    write_table(workflow / "photos")
    assert main(["new", "mine", "photos", "--set", "word=plant"]) == 0
    dataset = load(Path("config/mine.yaml")).datasets["mine"]
    assert dataset.word == "plant"
    assert dataset.ranks == ("order", "family", "genus", "species")
    assert yaml.safe_load(Path("config/datasets/mine.yaml").read_text())["test"] == {
        "table": "photos/mine.vltaxon.csv"
    }


def test_the_command_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vltaxon", "new", "A b", "x"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "must be of a-z, 0-9, _ . and -" in done.stderr
