"""What every file of the config is made of: closed models, names, raw files, and marks of fields."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    Tag,
    model_validator,
)
from pydantic.fields import FieldInfo

from vltaxon.credentials import Variable, without_queries
from vltaxon.errors import flat

NAME = r"^[a-z0-9][a-z0-9_.-]*$"
Name = Annotated[str, StringConstraints(pattern=NAME)]


def _seen(text: str) -> str:
    if not any(letter.isprintable() and not letter.isspace() for letter in text):
        raise ValueError(f"{text!r} has nothing that can be seen")
    controls = {letter for letter in text if unicodedata.category(letter) == "Cc"}
    if odd := sorted(controls - {"\t", "\n", "\r"}):
        raise ValueError(f"{text!r} has a character that controls a terminal, U+{ord(odd[0]):04X}")
    return text


Shown = Annotated[str, AfterValidator(_seen)]  # what tables and prompts show


def doubles(texts: Iterable[str]) -> list[str]:
    """Return in words which texts stand twice, or differ by case and spaces alone, as readers do not see."""
    known: dict[str, str] = {}
    found = []
    for text in texts:
        key = flat(text).casefold()
        if key in known:
            told = f'"{known[key]}" and "{text}" differ by case or spaces alone'
            found.append(f"{text} stands twice" if known[key] == text else told)
        known.setdefault(key, text)
    return list(dict.fromkeys(found))


Choices = Literal["similar", "random", "published"]

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]

MOVING = "main"  # the one revision that may be named though it is no commit


class Mark:
    """What a field is for, written where it is declared: `Annotated[int, HOW]`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def on(self, field: FieldInfo) -> bool:
        """Return whether a field has the mark."""
        return self in field.metadata


# The mark of a field that says how a job runs, or describes it: a change of its value runs nothing again.
HOW = Mark("HOW")


class Closed(BaseModel):
    """A frozen model that refuses unknown keys, and numbers that are infinite or none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def shaping(self) -> dict[str, Any]:
        """Return the fields that shape a result, as plain values.

        Fields with a mark (HOW, for one) are left out, and so are values that equal their default: a new
        field with a default runs nothing again. tests/data/defaults.json records the defaults, and a test
        asks for a decision when one of them changes.
        """
        return {
            name: plain(value)
            for name, field in type(self).model_fields.items()
            if not any(isinstance(mark, Mark) for mark in field.metadata)
            and ((value := getattr(self, name)) != default_of(field) or field.is_required())
        }


def default_of(field: FieldInfo) -> object:
    """Return the default of a field, None where it has none."""
    return None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})


# What was worked out of models that are fields of others: thousands of tasks share a few. They are frozen,
# and kept here, so that their ids stay theirs.
_SHAPED: dict[int, tuple["Closed", dict[str, Any]]] = {}


def plain(value: object) -> object:
    """Return a value as nothing but dicts, lists, texts and numbers."""
    if isinstance(value, Closed):
        known = _SHAPED.get(id(value))
        if known is None or known[0] is not value:
            known = _SHAPED[id(value)] = (value, value.shaping())
        return known[1]
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _key(key: object) -> str:
    return "/".join(key) if isinstance(key, tuple) else str(key)


TAGS = ("(raw)", "(path)", "(number)", "(word)")  # tags of alternatives, which errors do not show


class Source(Closed):
    """Where a raw file comes from: an address or a local path."""

    url: str | None = Field(None, description="http(s) address: the original or a mirror.")
    token: Annotated[Variable | None, HOW] = Field(
        None, description="url: NAME of the environment variable that holds its token, never the token."
    )
    path: Path | None = Field(None, description="A local copy.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("needs one of url and path")
        if self.url is not None and re.match(r"(\w+://)?[^/?]*@", self.url):
            raise ValueError("url: give it without user and password, and name a variable in `token`")
        if self.url is not None and not re.fullmatch(r"https?://[^/\s]+/\S*", self.url):
            raise ValueError(f'url: "{self}" is no http or https address')
        if self.url is None and self.token is not None:
            raise ValueError("token: is for a url")
        return self

    def __str__(self) -> str:
        return str(self.path) if self.url is None else without_queries(self.url)

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """Yield what a log may show: the query of an address may be signed."""
        yield ("path", self.path) if self.url is None else ("url", str(self))


class RawFile(Closed):
    """A raw file with its checksum, which is verified before anything reads the file.

    It is downloaded, or linked where it is here already.
    """

    source: Source = Field(examples=[{"url": "https://example.org/val.tar.gz"}])
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$", to_lower=True)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)] | None = None
    bytes: PositiveInt | None = Field(
        None, description="Exact size, where known: another is refused before the download starts."
    )
    gigabytes: PositiveFloat | None = Field(
        None, description="About how large it is, where no more is known, for `snakemake plan`."
    )
    file: str | None = Field(None, description="Name of the file, where the address does not end in it.")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not (self.md5 or self.sha256):
            raise ValueError("needs md5 or sha256; a local file without checksum is given by its path alone")
        if not re.fullmatch(r"\w[\w+-]*\.[\w.+-]*\w", self.name):
            raise ValueError(
                f'file: "{self.name}" (of {self.source}) is no file name with an ending; give one as `file`'
            )
        return self

    @property
    def name(self) -> str:
        """Return the name of the file: the end of its address unless another is given."""
        address = unquote(urlsplit(self.source.url).path) if self.source.url else str(self.source.path)
        return self.file or address.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Return where the file lies once it is verified, whatever its source."""
        return Path("results/raw") / self.name

    @property
    def checksum(self) -> str:
        """Return the checksum with its kind."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"


def _path_or_raw(value: object) -> str:
    """Return the tag of the alternative that a value means, so that an error is about that one."""
    return "(raw)" if isinstance(value, Mapping | RawFile) else "(path)"


Shards = Annotated[
    Annotated[PositiveInt, Tag("(number)")] | Annotated[Literal["auto"], Tag("(word)")],
    Discriminator(lambda value: "(word)" if isinstance(value, str) else "(number)"),
]

Raw = Annotated[
    Annotated[RawFile, Tag("(raw)")] | Annotated[Path, Tag("(path)")], Discriminator(_path_or_raw)
]


def local(file: Path | RawFile) -> Path:
    """Return the path of a raw file on this machine, once it is there."""
    return file.path if isinstance(file, RawFile) else file
