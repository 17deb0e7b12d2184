"""The command `vltaxon`: what is not a rule of the workflow. `vltaxon new` begins with a folder of photos."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from vltaxon.config.base import NAME
from vltaxon.errors import UserError, flat


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error of the user's is one line, and the exit status is 1."""
    try:
        given = _parser().parse_args(arguments)
        from vltaxon.proposal import Wish, propose

        print(propose(Wish(**vars(given) | {"settings": _settings(given.settings)})), end="")
    except ValidationError as error:  # of --train
        first = error.errors()[0]
        print(f"error: --{first['loc'][0]}: {flat(first['msg'])}; 0.5 is half of them", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: {error.filename}: {error.strerror}; the table of a folder of photos is written there. "
            "Where that may not be, make a folder of your own with links to the photos",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vltaxon", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser(
        "new",
        help="propose a data set and an experiment for a folder of photos",
        description="Looks at a folder of photos: folders called like their species, a CSV, metadata.csv, an "
        "export of iNaturalist. Tells what it understood, and writes three files that are yours to change: "
        "config/datasets/NAME.yaml, config/NAME.yaml, FOLDER/NAME.vltaxon.csv. Nothing is overwritten.",
    )
    new.add_argument("name", type=_name, metavar="NAME", help="of the data set: a-z, 0-9, _ . and -")
    new.add_argument("folder", type=Path, metavar="FOLDER", help="of the photos")
    new.add_argument(
        "--ranks", type=_words, help="what to call the levels, root first: order,family,genus,species"
    )
    new.add_argument(
        "--train",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of each species' photos to learn from, where folders or the table give no split",
    )
    new.add_argument("--model", default="tiny_vlm", help="file in config/models that is asked")
    new.add_argument("--encoder", default="tiny_siglip", help="file in config/models that finds options")
    new.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the data set's file that labels or photos need, as species=binomial",
    )
    return parser


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError(f'"{text}" must be of a-z, 0-9, _ . and -')
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _settings(given: Sequence[str]) -> dict[str, object]:
    """Return KEY=VALUE as YAML reads the values."""
    settings = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign:
            raise UserError(f'--set: "{text}" is no KEY=VALUE')
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f'--set: "{text}": {flat(error)}') from error
    return settings


if __name__ == "__main__":
    sys.exit(main())
