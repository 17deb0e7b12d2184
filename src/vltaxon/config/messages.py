"""Errors of the config in words: file, key, what is wrong, and the nearest legal name."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from vltaxon.config.base import TAGS
from vltaxon.config.models import Model
from vltaxon.errors import suggest


def problems_of(error: ValidationError, model: type[BaseModel], where: str) -> list[str]:
    """Pydantic's errors as sentences: file, key, what is wrong, nearest legal name for an unknown key."""
    lines = []
    deeper = {item["loc"][:i] for item in error.errors() for i in range(1, len(item["loc"]))}
    for item in error.errors():
        if item["type"] == "too_short" and item["loc"] in deeper:
            continue  # a list is too short only because its items were refused
        path = [str(part) for part in item["loc"][2 * (model is Model) :] if part not in TAGS]
        key = ".".join(path)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; legal is {suggest(path[-1], _legal_keys(model, item['loc']))}"
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "literal_error":
            allowed = [
                part.strip(" '") for part in str(item["ctx"]["expected"]).replace(" or ", ", ").split(",")
            ]
            message = f'"{item["input"]}" is not {suggest(str(item["input"]), allowed)}'
        elif item["type"] == "union_tag_invalid":
            given, allowed = (
                item["ctx"]["tag"],
                [p.strip(" '") for p in str(item["ctx"]["expected_tags"]).split(",")],
            )
            message, key = f'engine "{given}" is not {suggest(given, allowed)}', ""
        elif (
            not message.startswith(("scored", "train", "device", "group"))
            and "input" in item
            and item["type"] != "value_error"
        ):
            message = f"{message} (given: {item['input']!r})"
        lines.append(f"{where}: {key}: {message}" if key else f"{where}: {message}")
    return lines


def _legal_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Keys allowed beside the unknown key at `loc`, found by walking the JSON schema."""
    schema = model.model_json_schema()
    node: Mapping[str, Any] = schema
    for part in loc[:-1]:
        node = _resolve(node, schema)
        if isinstance(part, int):
            node = node.get("items", node)
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
        elif "oneOf" in node:
            mapping = node.get("discriminator", {}).get("mapping", {})
            node = {"$ref": mapping[part]} if part in mapping else node
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references and alternatives to the object they mean."""
    while not node.get("properties"):
        options = node.get("anyOf") or (node.get("oneOf") if "discriminator" not in node else None)
        if options:
            node = next((option for option in options if "$ref" in option or "oneOf" in option), options[0])
        elif "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        else:
            break
    return node
