"""Errors of the config in words: file, key, what is wrong, and the nearest legal name."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from vltaxon.config.base import NAME, TAGS
from vltaxon.config.engines import Model
from vltaxon.errors import suggest

Node = Mapping[str, Any]  # a node of a JSON schema


def problems_of(error: ValidationError, model: type[BaseModel], where: str) -> list[str]:
    """Return pydantic's errors as sentences: file, key, what is wrong, the nearest legal name.

    Args:
        error: what the validation raised.
        model: what the file should have been.
        where: the file.
    """
    lines = []
    deeper = {item["loc"][:i] for item in error.errors() for i in range(1, len(item["loc"]))}
    schema = model.model_json_schema()
    for item in error.errors():
        if item["type"] == "too_short" and item["loc"] in deeper:
            continue  # a list is too short only because its items were refused
        place = _place(schema, item["loc"])
        keys = [key for key in place.keys[model is Model :] if key != "[key]"]  # a model file is all `spec`
        message, context = item["msg"].removeprefix("Value error, "), item.get("ctx", {})
        if item["type"] == "extra_forbidden":
            message = f"{place.foreign or 'unknown key'}; legal is {suggest(keys[-1], place.legal)}"
        elif item["type"] == "missing":
            message = "is missing" + place.example
        elif context.get("pattern") == NAME:
            message = f'"{item["input"]}" is no name: lower-case letters and digits, between them also . _ -'
        elif item["type"] == "literal_error":
            message = f'"{item["input"]}" is not {suggest(str(item["input"]), _words(context["expected"]))}'
        elif item["type"] == "union_tag_invalid":
            [field], tag = _words(context["discriminator"]), context["tag"]
            message = f'{field} "{tag}" is not {suggest(tag, _words(context["expected_tags"]))}'
        elif item["type"] == "union_tag_not_found":
            message = f"{_words(context['discriminator'])[0]} is missing"
        elif (
            not message.startswith(("scored", "train", "device", "group"))
            and "input" in item
            and item["type"] != "value_error"
        ):
            message = f"{message} (given: {item['input']!r})"
        lines.append(": ".join(filter(None, (where, ".".join(keys), message))))
    return lines


def _words(listed: object) -> list[str]:
    """Return pydantic's `'a', 'b' or 'c'` as a list."""
    return [part.strip(" '") for part in str(listed).replace(" or ", ", ").split(",")]


class _Place(NamedTuple):
    """Where an error is.

    Attributes:
        keys: the keys that lead to it, as the file has them.
        legal: keys that are allowed beside the last one.
        foreign: of which other kinds of object the last one is a key, in words; empty where of none.
        example: of the last key and a value, in words; empty where there is none.
    """

    keys: list[str]
    legal: list[str]
    foreign: str
    example: str


def _place(schema: Node, loc: tuple[int | str, ...]) -> _Place:
    """Return where an error is, by walking the JSON schema along the place that pydantic gives.

    That names, beside keys, which of several kinds an object was taken for.
    """
    node, keys, legal, foreign = schema, list[str](), list[str](), ""
    taken, kinds = "", dict[str, list[str]]()  # which kind an object was taken for, and the keys of each
    for part in (part for part in loc if part not in TAGS):
        node = _resolve(node, schema)
        references = node.get("discriminator", {}).get("mapping", {})
        if part in references:
            taken, kinds = str(part), {kind: _keys({"$ref": ref}, schema) for kind, ref in references.items()}
            node = {"$ref": references[part]}
            continue
        keys, legal = [*keys, str(part)], list(node.get("properties", {}))
        others = [kind for kind, names in kinds.items() if part in names and part not in legal]
        foreign = f"is for {' and '.join(others)}, not for {taken}" if others else ""
        kinds = {}
        if isinstance(part, int):
            node = node.get("items", node)
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        elif "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
    example = ""
    for value in node.get("examples", ())[:1]:
        shown = yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
        example = f"; for example `{keys[-1]}: {shown}`"
    return _Place(keys, legal, foreign, example)


def _keys(node: Node, schema: Node) -> list[str]:
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: Node, schema: Node) -> Node:
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
