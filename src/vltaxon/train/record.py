"""What is written of a training beside its adapter: its curve, and the record of what was done and how."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon import layout, provenance, schemas

if TYPE_CHECKING:
    from vltaxon.config.steps import Column, Curve


def curve_of(history: Sequence[Mapping[str, Any]], columns: Mapping[str, "Column"]) -> "Curve":
    """Return a trainer's log as a curve, in the order of the steps.

    Args:
        history: the log, an entry or more for each optimiser step.
        columns: what is kept of it, by TRL's name, in the order of a step's rows.
    """
    return [
        (entry["step"], column.name + key.removeprefix(name), float(entry[key]))
        for entry in history
        for name, column in columns.items()
        for key in (sorted(entry) if column.family else [name])
        if key.startswith(name) and entry.get(key) is not None
    ]


def write_record(folder: Path, curve: "Curve", record: Mapping[str, Any], seed: int) -> None:
    """Write curve.parquet and record.json into an adapter's folder, stamped with versions.

    Args:
        folder: of the adapter.
        curve: of the training.
        record: what there is to say, with the digest of the adapter as `adapter_after`.
        seed: of the training.
    """
    import pyarrow as pa

    table = pa.table(dict(zip(schemas.CURVE.names, map(list, zip(*curve, strict=True)), strict=True)))
    provenance.write_parquet(
        table, folder / layout.CURVE, schemas.CURVE, rule="train", seed=seed, adapter=record["adapter_after"]
    )
    origin: dict[str, Any] = provenance.origin() | {"python": platform.python_version()}
    origin["packages"] = json.loads(origin["packages"])
    text = json.dumps({**record, **origin}, indent=1, sort_keys=True) + "\n"
    (folder / layout.RECORD).write_text(text, encoding="utf-8")
