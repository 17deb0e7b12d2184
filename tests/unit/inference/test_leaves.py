"""The list of the shards of stage 1 on which all shards of stage 2 depend."""

import json
from pathlib import Path

from vltaxon.inference.leaves import list_leaves, listed
from vltaxon.tasks.prediction import ListLeavesTask


def test_a_list_names_the_tables_and_changes_with_their_bytes(tmp_path: Path) -> None:
    shards = [tmp_path / f"{number}.parquet" for number in (0, 1, 10)]
    for path in shards:
        path.write_bytes(path.name.encode())
    made = tmp_path / "shards.json"
    task = ListLeavesTask(leaves=tuple(shards), shards=made)
    list_leaves(task)
    assert listed([made]) == shards == listed(shards)
    before = json.loads(made.read_text())
    shards[2].write_bytes(b"other")
    list_leaves(task)
    after = json.loads(made.read_text())
    assert [path for path in before if before[path] != after[path]] == [str(shards[2])]
