"""What the tiny base model reads: a small web of captions, questions and lineages about the synthetic clades.

It is made to leave the model as the paper finds large ones. Names of leaves come with images; lineages come mostly as text;
the levels above the leaf are hardly ever asked about an image. So the knowledge is there, and direct answers do not reach it.
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
    "You are an expert in hierarchical image classification. Given an image, classify it at its current hierarchy level by "
    "selecting the most appropriate option from the provided choices (labeled with letters). Respond with only the "
    "corresponding letter."
)
DIRECT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
LEAF = (
    "What is the most specific taxonomic category of the {word} in this image? Think from the most general level to the most "
    "specific one ({ranks}), naming the taxon at each level. Put the reasoning in <think> </think> and only the final name in "
    "<answer> </answer>."
)
ANSWER = (
    'A first look identified the {word} as "{leaf}". {question}\n{options}\nThink from the most general level to the most '
    "specific one, then give only the letter in <answer> </answer>, with the reasoning in <think> </think>."
)
WORDING = {
    "plants": "Given the plant in the image, what is its taxonomic classification at the {rank} level?",
    "animals": "Given the animal in the image, what is its taxonomic classification at the {rank} level?",
    "birds": "Based on taxonomy, what is the {rank} of the bird in this image?",
}
# Prompts that only the corpus has.
NAME = "What {word} is this?"
LINEAGE = "What is the lineage of {leaf}?"
MATCH = 'What is the {rank} of "{leaf}"?\n{options}\nThink from the most general level to the most specific one.'


@dataclass(frozen=True)
class Lesson:
    """A prompt with its answer, in pieces: the text of each, and whether it is to be learned.

    Attributes:
        prompt: what is given.
        answer: the pieces.
        species: the one pictured, if any.
        about: for each piece, the species whose taxa it names (the one pictured, or the one that the prompt names).
    """

    prompt: str
    answer: tuple[tuple[str, bool], ...]
    species: Species | None = None
    about: tuple[Species | None, ...] = ()


def turn(text: str, system: str = HELPFUL) -> str:
    """A conversation up to the model's turn, as the chat template renders it."""
    return f"<|im_start|>system\n{system}{END}\n<|im_start|>user\n{text}{END}\n<|im_start|>assistant\n"


def question(clade: Clade, level: int) -> str:
    """The benchmark's question line for a 1-based level."""
    return WORDING[clade.name].format(rank=clade.ranks[level - 1])


def reasoning(clade: Clade, species: Species, level: int) -> str:
    """`Kingdom: K; ...; Family: F`, from the root down to a 1-based level."""
    pairs = zip(clade.ranks[:level], species.lineage, strict=False)
    return "; ".join(f"{rank.capitalize()}: {taxon}" for rank, taxon in pairs)


class Corpus:
    """Draws lessons, kind by kind.

    Args:
        clades: the trees.
        words: further words for exercises in recall.
        seed: of the draws.
        reasoned: every how-manieth species has captions that list the whole lineage; the others' only name the leaf.
    """

    def __init__(self, clades: Sequence[Clade], words: Sequence[str], seed: int, reasoned: int = 2) -> None:
        self.clades = {clade.name: clade for clade in clades}
        self.species = [s for clade in clades for s in clade.species]
        self.taxa = {c.name: [c.taxa(k) for k in range(1, len(c.ranks) + 1)] for c in clades}
        self.words = sorted(words)
        self.reasoned = frozenset(s.name for s in self.species[::reasoned])
        self.rng = random.Random(seed)

    def _any(self) -> tuple[Clade, Species]:
        species = self.rng.choice(self.species)
        return self.clades[species.clade], species

    def level(self, clade: Clade, leaf: bool) -> int:
        """A level that has distractors, the leaf's among them or not."""
        first = 1 if len(self.taxa[clade.name][0]) > 3 else 2
        return self.rng.randint(first, len(clade.ranks) - (not leaf))

    def options(self, clade: Clade, species: Species, level: int, related: bool | None = None) -> tuple[list[str], str]:
        """Four taxa of a 1-based level with the right one among them, and its letter.

        Args:
            clade: the tree.
            species: whose taxon is right.
            level: where.
            related: siblings first among the distractors; by default in half of the draws.
        """
        right, parent = species.lineage[level - 1], species.lineage[: level - 1]
        others = [t for t in self.taxa[clade.name][level - 1] if t != right]
        wrong: list[str] = []
        if self.rng.random() < 0.5 if related is None else related:
            siblings = sorted({s.lineage[level - 1] for s in clade.species if s.lineage[: level - 1] == parent} - {right})
            wrong = self.rng.sample(siblings, min(3, len(siblings)))
        wrong += self.rng.sample([t for t in others if t not in wrong], min(3, len(others)) - len(wrong))
        options = [right, *wrong]
        self.rng.shuffle(options)
        return options, LETTERS[options.index(right)]

    def recall(self) -> Lesson:
        """Options, then some of them again, each followed by its letter: text alone, five answers in a line."""
        if self.rng.random() < 0.5:
            clade, species = self._any()
            options, _ = self.options(clade, species, self.level(clade, leaf=True))
        else:
            options = self.rng.sample(self.words, 4)
        answer: list[tuple[str, bool]] = []
        for k in self.rng.choices(range(4), k=5):
            answer += [(f" {options[k]}</think><answer>", False), (LETTERS[k], True), ("</answer>\n", False)]
        return Lesson(listed(options) + "\n", tuple(answer))

    def cue(self) -> Lesson:
        """An image or a quoted name, options, the letter: the barest form of a question."""
        clade, species = self._any()
        options, letter = self.options(clade, species, len(clade.ranks))
        tail = f"\n{listed(options)}\n{END}\n<|im_start|>assistant\n"
        if self.rng.random() < 0.5:
            return Lesson(f'"{species.name}"{tail}', ((letter + END, True),))
        return Lesson(IMAGE + tail, ((letter + END, True),), species)

    def direct(self, clade: Clade | None = None, species: Species | None = None, level: int | None = None) -> Lesson:
        """The benchmark's question about an image, answered by a bare letter; about the leaf unless a level is given."""
        if clade is None or species is None:
            clade, species = self._any()
        level = level or len(clade.ranks)
        options, letter = self.options(clade, species, level)
        text = DIRECT.format(question=question(clade, level), options=listed(options))
        return Lesson(turn(IMAGE + text, EXPERT), ((letter + END, True),), species)

    def upper(self) -> Lesson:
        """The same about a level above the leaf."""
        clade, species = self._any()
        return self.direct(clade, species, self.level(clade, leaf=False))

    def match(self) -> Lesson:
        """A name, options at some level, the lineage down to it, the letter: plainly, as in stage 2, or with the image."""
        clade, species = self._any()
        level = self.level(clade, leaf=True)
        options, letter = self.options(clade, species, level)
        template, pictured = self.rng.choice(((MATCH, False), (ANSWER, False), (ANSWER, True)))
        text = template.format(
            word=clade.name[:-1],
            rank=clade.ranks[level - 1],
            leaf=species.name,
            question=question(clade, level),
            options=listed(options),
        )
        answer = ((f"<think>{reasoning(clade, species, level)}</think><answer>", True), (letter, True), (f"</answer>{END}", True))
        about = (species, None, None)
        return Lesson(turn(IMAGE + text), answer, species, about) if pictured else Lesson(turn(text), answer, about=about)

    def lineage(self) -> Lesson:
        """Text alone: a name, its lineage; three times in one conversation."""
        prompt = ""
        answer: list[tuple[str, bool]] = []
        about: list[Species | None] = []
        for _ in range(3):
            clade, species = self._any()
            asked = LINEAGE.format(leaf=species.name)
            if answer:
                answer.append((f"\n<|im_start|>user\n{asked}{END}\n<|im_start|>assistant\n", False))
            else:
                prompt = turn(asked)
            answer.append((reasoning(clade, species, len(clade.ranks)) + END, True))
            about += [species] * (len(answer) - len(about))
        return Lesson(prompt, tuple(answer), about=tuple(about))

    def name(self) -> Lesson:
        """An image and its leaf's name."""
        clade, species = self._any()
        return Lesson(turn(IMAGE + NAME.format(word=clade.name[:-1])), ((species.name + END, True),), species)

    def leaf(self, clade: Clade | None = None, species: Species | None = None) -> Lesson:
        """The stage 1 prompt, answered after the lineage where the species has such captions, else by the name alone."""
        if clade is None or species is None:
            clade, species = self._any()
        text = LEAF.format(word=clade.name[:-1], ranks=", ".join(clade.ranks))
        thought = f"<think>{reasoning(clade, species, len(clade.ranks))}</think>" if species.name in self.reasoned else ""
        return Lesson(turn(IMAGE + text), ((f"{thought}<answer>{species.name}</answer>{END}", True),), species, (species,))
