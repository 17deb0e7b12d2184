"""Questions of data sets that give none that counts."""

from pathlib import Path

import yaml
from PIL import Image

from tests.workflow.conftest import Run


def test_a_data_set_of_one_label_is_refused_when_its_questions_are_made(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for name in ("a", "b"):
        Image.new("RGB", (40, 40), "green").save(tmp_path / f"{name}.png")
    rows = ["path,family,species", "a.png,Rosaceae,Rosa canina", "b.png,Rosaceae,Rosa canina"]
    (tmp_path / "mono.csv").write_text("\n".join(rows))
    mono = {
        "source": "folder", "word": "plant", "ranks": ["family", "species"], "scored_levels": [1, 2],
        "questions": "inat21", "test": {"table": "mono.csv"}, "licence": "mine",
    }  # fmt: skip
    (tmp_path / "config/datasets/mono.yaml").write_text(yaml.safe_dump(mono))
    config = tmp_path / "config/config.yaml"
    given = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(given | {"datasets": [*given["datasets"], "mono"]}))
    status, said = run.snakemake("--cores", "1", "results/questions/mono/random.parquet")
    assert status and "error: mono: no question of it counts: at each of its scored levels it has one" in said
    assert "family Rosaceae, species Rosa canina" in said
    assert not (tmp_path / "results/questions/mono/random.parquet").exists()
