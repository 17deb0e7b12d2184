"""What the tiny base model learns from: captions, questions and lineages of the synthetic clades.

They are made to leave the model as the paper finds large ones. Names of leaves come with images; lineages
come mostly as text; the levels above the leaf are hardly ever asked about an image. So the knowledge is
there, and direct answers do not reach it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from vltaxon.demo.clades import Clade, Species
from vltaxon.prompts import listed

IMAGE = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
END = "<|im_end|>"
LETTERS = "ABCD"
HELPFUL = "You are a helpful assistant."
# The prompts of config/prompts and config/questions, word for word (a test compares them).
EXPERT = (
    "You are an expert in hierarchical image classification. Given an image, classify it at its current "
    "hierarchy level by selecting the most appropriate option from the provided choices (labeled with "
    "letters). Respond with only the corresponding letter."
)
DIRECT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
LEAF = (
    "What is the most specific taxonomic category of the {word} in this image? Think from the most general "
    "level to the most specific one ({ranks}), naming the taxon at each level. Put the reasoning in <think> "
    "</think> and only the final name in <answer> </answer>."
)
ANSWER = (
    'A first look identified the {word} as "{leaf}". {question}\n{options}\nThink from the most general '
    "level to the most specific one, then give only the letter in <answer> </answer>, with the reasoning in "
    "<think> </think>."
)
WORDING = {
    "plants": "Given the plant in the image, what is its taxonomic classification at the {rank} level?",
    "animals": "Given the animal in the image, what is its taxonomic classification at the {rank} level?",
    "birds": "Based on taxonomy, what is the {rank} of the bird in this image?",
}
# Prompts that only the corpus has.
NAME = "What {word} is this?"
LINEAGE = "What is the lineage of {leaf}?"
MATCH = """What is the {rank} of "{leaf}"?
{options}
Think from the most general level to the most specific one."""


@dataclass(frozen=True)
class Lesson:
    """A prompt with its answer, in pieces: the text of each, and whether it is to be learned.

    Attributes:
        prompt: text before the answer.
        answer: the pieces.
        species: the one pictured, if any.
        about: for each piece, the species whose taxa it names (the one pictured, or the one that the prompt
            names).
    """

    prompt: str
    answer: tuple[tuple[str, bool], ...]
    species: Species | None = None
    about: tuple[Species | None, ...] = ()


def turn(text: str, system: str = HELPFUL) -> str:
    """Write a conversation up to the model's turn, as the chat template renders it.

    Args:
        text: the user's message.
        system: the system's.

    Returns:
        The text, ready for the answer's first token.
    """
    return f"<|im_start|>system\n{system}{END}\n<|im_start|>user\n{text}{END}\n<|im_start|>assistant\n"


def question(clade: Clade, level: int) -> str:
    """Write the benchmark's question line.

    Args:
        clade: the tree.
        level: 1-based.

    Returns:
        The line, without options.
    """
    return WORDING[clade.name].format(rank=clade.ranks[level - 1])


def reasoning(clade: Clade, species: Species, level: int) -> str:
    """Write a lineage as `Kingdom: K; ...; Family: F`.

    Args:
        clade: the tree.
        species: whose lineage.
        level: the last one to name, 1-based.

    Returns:
        The line, from the root down to the level.
    """
    pairs = zip(clade.ranks[:level], species.lineage, strict=False)
    return "; ".join(f"{rank.capitalize()}: {taxon}" for rank, taxon in pairs)


class Corpus:
    """Draws lessons; each public method without arguments is a kind of lesson."""

    def __init__(self, clades: Sequence[Clade], words: Sequence[str], seed: int, reasoned: int = 2) -> None:
        """Prepare to draw.

        Args:
            clades: the trees.
            words: further words for exercises in recall.
            seed: of the draws.
            reasoned: one species in so many has captions that list the whole lineage; the others' name the
                leaf only.
        """
        self.clades = {clade.name: clade for clade in clades}
        self.species = [species for clade in clades for species in clade.species]
        self.taxa = {c.name: [c.taxa(level) for level in range(1, len(c.ranks) + 1)] for c in clades}
        self.words = sorted(words)
        self.reasoned = frozenset(species.name for species in self.species[::reasoned])
        self.rng = random.Random(seed)

    def _draw_species(self) -> tuple[Clade, Species]:
        species = self.rng.choice(self.species)
        return self.clades[species.clade], species

    def _draw_level(self, clade: Clade, leaf: bool) -> int:
        """Draw a 1-based level that has distractors, the leaf's among them or not."""
        first = 1 if len(self.taxa[clade.name][0]) > 3 else 2
        return self.rng.randint(first, len(clade.ranks) - (not leaf))

    def options(
        self,
        clade: Clade,
        species: Species,
        level: int,
        related: bool | None = None,
    ) -> tuple[list[str], str]:
        """Draw four taxa of a level with the right one among them (all of them where there are fewer).

        Args:
            clade: the tree.
            species: whose taxon is right.
            level: 1-based.
            related: take siblings first as distractors; by default in half of the draws.

        Returns:
            The taxa, and the letter of the right one.
        """
        right, parents = species.lineage[level - 1], species.lineage[: level - 1]
        if related is None:
            related = self.rng.random() < 0.5
        wrong: list[str] = []
        if related:
            relatives = [other for other in clade.species if other.lineage[: level - 1] == parents]
            siblings = sorted({relative.lineage[level - 1] for relative in relatives} - {right})
            wrong = self.rng.sample(siblings, min(3, len(siblings)))
        others = [taxon for taxon in self.taxa[clade.name][level - 1] if taxon != right]
        missing = min(3, len(others)) - len(wrong)
        wrong += self.rng.sample([taxon for taxon in others if taxon not in wrong], missing)
        options = [right, *wrong]
        self.rng.shuffle(options)
        return options, LETTERS[options.index(right)]

    def recall(self) -> Lesson:
        """Options, then some of them again, each followed by its letter: text alone, five answers."""
        if self.rng.random() < 0.5:
            clade, species = self._draw_species()
            options, _ = self.options(clade, species, self._draw_level(clade, leaf=True))
        else:
            options = self.rng.sample(self.words, 4)
        answer: list[tuple[str, bool]] = []
        for k in self.rng.choices(range(4), k=5):
            answer += [(f" {options[k]}</think><answer>", False), (LETTERS[k], True), ("</answer>\n", False)]
        return Lesson(listed(options) + "\n", tuple(answer))

    def cue(self) -> Lesson:
        """An image or a quoted name, options, the letter: the barest form of a question."""
        clade, species = self._draw_species()
        options, letter = self.options(clade, species, len(clade.ranks))
        tail = f"\n{listed(options)}\n{END}\n<|im_start|>assistant\n"
        if self.rng.random() < 0.5:
            return Lesson(f'"{species.name}"{tail}', ((letter + END, True),))
        return Lesson(IMAGE + tail, ((letter + END, True),), species)

    def direct(
        self,
        clade: Clade | None = None,
        species: Species | None = None,
        level: int | None = None,
    ) -> Lesson:
        """The benchmark's question about an image, answered by a bare letter.

        Args:
            clade: the tree.
            species: the one pictured; drawn where it or the clade is not given.
            level: 1-based; the leaf's by default.

        Returns:
            The lesson, whose answer is the letter and the end of the turn.
        """
        if clade is None or species is None:
            clade, species = self._draw_species()
        level = level or len(clade.ranks)
        options, letter = self.options(clade, species, level)
        text = DIRECT.format(question=question(clade, level), options=listed(options))
        return Lesson(turn(IMAGE + text, EXPERT), ((letter + END, True),), species)

    def upper(self) -> Lesson:
        """The same about a level above the leaf."""
        clade, species = self._draw_species()
        return self.direct(clade, species, self._draw_level(clade, leaf=False))

    def match(self) -> Lesson:
        """A name, options at some level, the lineage down to it, the letter.

        The prompt is plain, or that of stage 2, without or with the image.
        """
        clade, species = self._draw_species()
        level = self._draw_level(clade, leaf=True)
        options, letter = self.options(clade, species, level)
        template, pictured = self.rng.choice(((MATCH, False), (ANSWER, False), (ANSWER, True)))
        text = template.format(
            word=clade.name[:-1],
            rank=clade.ranks[level - 1],
            leaf=species.name,
            question=question(clade, level),
            options=listed(options),
        )
        answer = (
            (f"<think>{reasoning(clade, species, level)}</think><answer>", True),
            (letter, True),
            (f"</answer>{END}", True),
        )
        about = (species, None, None)
        if pictured:
            return Lesson(turn(IMAGE + text), answer, species, about)
        return Lesson(turn(text), answer, about=about)

    def lineage(self) -> Lesson:
        """Text alone: a name, its lineage; three times in one conversation."""
        prompt = ""
        answer: list[tuple[str, bool]] = []
        about: list[Species | None] = []
        for _ in range(3):
            clade, species = self._draw_species()
            request = LINEAGE.format(leaf=species.name)
            if answer:
                answer.append((f"\n<|im_start|>user\n{request}{END}\n<|im_start|>assistant\n", False))
                about.append(species)
            else:
                prompt = turn(request)
            answer.append((reasoning(clade, species, len(clade.ranks)) + END, True))
            about.append(species)
        return Lesson(prompt, tuple(answer), about=tuple(about))

    def name(self) -> Lesson:
        """An image and its leaf's name."""
        clade, species = self._draw_species()
        prompt = turn(IMAGE + NAME.format(word=clade.name[:-1]))
        return Lesson(prompt, ((species.name + END, True),), species)

    def leaf(self, clade: Clade | None = None, species: Species | None = None) -> Lesson:
        """The stage 1 prompt, answered by the name, after the lineage where the species has such captions.

        Args:
            clade: the tree.
            species: the one pictured; drawn where it or the clade is not given.

        Returns:
            The lesson, whose answer ends with the name.
        """
        if clade is None or species is None:
            clade, species = self._draw_species()
        text = LEAF.format(word=clade.name[:-1], ranks=", ".join(clade.ranks))
        answer = f"<answer>{species.name}</answer>{END}"
        if species.name in self.reasoned:
            answer = f"<think>{reasoning(clade, species, len(clade.ranks))}</think>{answer}"
        return Lesson(turn(IMAGE + text), ((answer, True),), species, (species,))
