"""A tiny Qwen2.5-VL, pre-trained from nothing on the synthetic clades: the demo's base model.

The architecture, the processor and the checkpoint's form are the real ones; only the sizes are small. What makes two million
parameters learn to read an image *and* to choose a letter, within minutes on a CPU:

- **Words for pixels.** The vision tower learns to turn an image's four visual tokens into the embeddings of the words that name
  its species. An image then reads like a name, so what is learned about names in text holds for images.
- **Structured initialisation** (in the spirit of mimetic initialisation, Trockman and Kolter, arXiv 2305.09828). The heads of
  the first layer start as look-back heads, made by biases and RoPE; those of the second and fourth start as induction heads
  (Olsson et al., arXiv 2209.11895): they look for the word that the look-back heads wrote, and copy what stood before it.
- **Deep supervision.** Two probes, thrown away in the end, ask the second layer for an option's letter at the option, and the
  third for the right option's word where the letter is due.
- **A curriculum.** Recall in text, then bare questions, then the true prompt, and only then everything together.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    DynamicCache,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    apply_rotary_pos_emb_vision,
    get_vision_position_ids,
)

from vltaxon.demo import corpus
from vltaxon.demo.clades import Clade, Species, world
from vltaxon.demo.corpus import END, LETTERS, Corpus, Lesson, reasoning
from vltaxon.demo.organisms import draw, stream
from vltaxon.provenance import digest_file

PIXELS = 56 * 56
SIDE, PATCHES = 4, 16  # of an image in patches of 14 x 14; merged two by two into four visual tokens
SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
# The markers of generation tell TRL which tokens are the assistant's, for a loss on every answer of a conversation.
TEMPLATE = (
    "{% macro said(m) %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in c %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endmacro %}"
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ said(m) }}{% endgeneration %}{% else %}{{ said(m) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, HEADS, LAYERS = 128, 4, 5
EMBEDDING_STD = 0.08


@dataclass(frozen=True)
class Stage:
    """One lesson plan: kinds of lessons with their weights, and for how long."""

    name: str
    kinds: dict[str, float]
    steps: int
    batch: int
    learning_rate: float
    decay: bool = False
    aux: float = 0.5


STAGES = (
    Stage("recall", {"recall": 1}, 60, 24, 6e-4),
    Stage("cue", {"recall": 1, "cue": 4}, 250, 32, 6e-4),
    Stage("cue and question", {"recall": 1, "cue": 5, "direct": 1}, 440, 24, 6e-4),
    Stage("question", {"recall": 1, "cue": 5, "direct": 5}, 480, 24, 6e-4),
    Stage(
        "everything",
        {
            "recall": 0.5,
            "cue": 0.7,
            "direct": 2.5,
            "upper": 1,
            "match": 2.5,
            "lineage": 2.5,
            "leaf": 2.5,
            "name": 1,
        },
        1200,
        16,
        6e-4,
        decay=True,
    ),
)
WEB_IMAGES, VISION_STEPS = 30, 900


# ------------------------------------------------------------------------------------------------ the parts


def build_tokenizer(clades: Sequence[Clade]) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every taxon's word, and every word of the prompts, is one token; `<think>` and the like too."""
    tokenizer = Tokenizer(models.BPE())
    words = r" ?</?\p{L}+>|\p{L}+'s| ?\p{L}+(?:-\p{L}+)*|\p{N}| ?[^\s\p{L}\p{N}]|\s"
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    texts = [
        corpus.EXPERT,
        corpus.HELPFUL,
        corpus.DIRECT,
        corpus.ANSWER,
        corpus.MATCH,
        corpus.LINEAGE,
        "user\nassistant\nsystem\n",
    ]
    texts += ["A B C D <think> </think> <answer> </answer><think></think><answer></answer>"] * 20
    for clade in clades:
        word = clade.name[:-1]
        texts += [
            corpus.LEAF.format(word=word, ranks=", ".join(clade.ranks)),
            corpus.NAME.format(word=word),
            f"{word}\n{word}s",
        ]
        for level, rank in enumerate(clade.ranks, 1):
            texts += [f"{corpus.question(clade, level)} {rank}", f"{rank.capitalize()}: {rank.capitalize()}"]
        for species in clade.species:
            texts += [" " + " ".join(species.lineage)] * 4 + [f"{species.name}\n{species.name}\n{species.name}"]
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=3,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=SPECIAL[0],
        additional_special_tokens=SPECIAL[1:],
        padding_side="left",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor, at 56 x 56 pixels: four visual tokens."""
    images = Qwen2VLImageProcessor(patch_size=14, merge_size=2, min_pixels=PIXELS, max_pixels=PIXELS)
    return Qwen2_5_VLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The model from its config, with the structured initialisation."""
    torch.manual_seed(seed)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in zip("ESNVWIX", SPECIAL, strict=True)}
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0},
            "tie_word_embeddings": True,
            "bos_token_id": ids["E"],
            "eos_token_id": ids["N"],
            "pad_token_id": ids["E"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 80,
            "intermediate_size": 160,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": WIDTH,
            "window_size": 56,
            "fullatt_block_indexes": [2],
            "initializer_range": 0.05,
        },
        image_token_id=ids["I"],
        video_token_id=ids["X"],
        vision_start_token_id=ids["V"],
        vision_end_token_id=ids["W"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        prime(model.model.language_model, tokenizer)
    return model


def prime(language: Any, tokenizer: PreTrainedTokenizerFast, sharpness: float = 12.0, copy: float = 6.0) -> None:
    """Starts the language model with look-back heads, induction heads, and a residual stream that carries words.

    A look-back head by d has constant query and key biases that RoPE brings into phase at distance d. Its value and output
    matrices, V and R, write the earlier token's features into a subspace of their own. An induction head reads features of one
    position's word (through V) or of an earlier word (through R) as query and key, and copies in the same way.

    Args:
        language: the decoder.
        tokenizer: names the words: the forms with and without a leading space start alike.
        sharpness: logit of a match in an induction head.
        copy: gain of what an induction head copies.
    """
    size = WIDTH // HEADS
    half, fast = size // 2, 8
    slow = torch.cat([torch.arange(5, half), torch.arange(half + 5, size)])  # dims that RoPE hardly turns
    theta = 10_000.0 ** (-torch.arange(half) / half)
    gain = (sharpness * size**0.5 / len(slow)) ** 0.5
    small = EMBEDDING_STD / (0.08 * (WIDTH * size) ** 0.5)
    words = language.embed_tokens.weight.normal_(0, EMBEDDING_STD)
    vocabulary = tokenizer.get_vocab()
    for token, index in vocabulary.items():
        if len(token) > 2 and f"Ġ{token}" in vocabulary:
            words[index] = 0.8 * words[vocabulary[f"Ġ{token}"]] + 0.6 * words[index]
    values: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}
    for number, layer in enumerate(language.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for projection, std in (
            (attention.q_proj, 0.04),
            (attention.k_proj, 0.04),
            (attention.v_proj, 0.08),
            (attention.o_proj, small / 3),
            (mlp.gate_proj, 0.08),
            (mlp.up_proj, 0.08),
            (mlp.down_proj, 0.002),
        ):
            projection.weight.normal_(0, std)
        # (query, key, copied): 0 is the position's own word, d the one d before it
        circuits = {
            1: ((0, 1, 3), (1, 0, 2), (2, 0, 2), (2, 0, 3)),
            3: ((0, 0, 2), (0, 0, 3), (2, 0, 2), (2, 0, 3)),
        }.get(number, ())
        for head in range(3 if number == 0 else 0):
            back, rows = head + 1, slice(head * size, (head + 1) * size)
            attention.q_proj.weight[rows].normal_(0, 0.02)
            attention.k_proj.weight[rows].normal_(0, 0.02)
            start = head * size
            attention.k_proj.bias[start : start + fast] = 5.0
            attention.q_proj.bias[start : start + fast] = 5.0 * torch.cos(back * theta[:fast])
            attention.q_proj.bias[start + half : start + half + fast] = -5.0 * torch.sin(back * theta[:fast])
            attention.o_proj.weight[:, rows] *= 3
            values[back], outputs[back] = (
                attention.v_proj.weight[rows].clone(),
                attention.o_proj.weight[:, rows].clone(),
            )
        for head, (query, key, copied) in enumerate(circuits):
            rows = slice(head * size, (head + 1) * size)
            for projection, reads in ((attention.q_proj, query), (attention.k_proj, key)):
                features = outputs[reads].T / 0.177 if reads else values[query or key or 2] / 0.45
                projection.weight[rows] = 0
                projection.weight[head * size + slow] = gain * features[: len(slow)]
            attention.v_proj.weight[rows] = outputs[copied].T / 0.177
            attention.o_proj.weight[:, rows] = copy * EMBEDDING_STD * values[copied].T / (values[copied].norm() / size**0.5)


def look(tower: Any, pixels: Tensor) -> Tensor:
    """The vision tower on images of one size in one batch: what its own `forward` computes, which loops over images.

    Args:
        tower: the vision tower.
        pixels: (images, 16, 1176) patches.

    Returns:
        (images, 4, width) visual tokens.
    """
    count = len(pixels)
    grid = torch.tensor([[1, SIDE, SIDE]])
    hidden = tower.patch_embed(pixels.reshape(count * PATCHES, -1))
    cos, sin = (t.repeat(count, 1) for t in tower.rotary_pos_emb(hidden, get_vision_position_ids(grid, 2, kwargs={})))
    for block in tower.blocks:
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(hidden)).view(count * PATCHES, 3, heads, -1).unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        q, k, v = (t.view(count, PATCHES, heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count * PATCHES, -1)
        hidden = hidden + block.attn.proj(mixed)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return tower.merger(hidden).view(count, PATCHES // 4, -1)


def positions(ids: Tensor, image_token: int) -> Tensor:
    """M-RoPE positions (3, rows, length) of rows with at most one image of 2 x 2 visual tokens."""
    image = ids == image_token
    seen = image.cumsum(1)
    place = (seen - 1).clamp(min=0)
    plain = torch.arange(ids.shape[1]).expand_as(ids)
    start, after = plain - place, plain - 2 * ((seen == 4) & ~image).long()
    return torch.stack([torch.where(image, start + offset, after) for offset in (0 * place, place // 2, place % 2)])


# ------------------------------------------------------------------------------------------------- training


class Pupil:
    """The model in training: lessons in, losses out. Images enter as visual tokens, computed beforehand.

    Attributes:
        visual: species number -> (images, 4, width) visual tokens; the words' own embeddings until the tower has learned.
    """

    def __init__(self, seed: int = 0, clades: Sequence[Clade] = ()) -> None:
        self.clades = list(clades or world().values())
        self.tokenizer = build_tokenizer(self.clades)
        self.model = build_model(self.tokenizer, seed)
        self.language = self.model.model.language_model
        self.words = self.language.embed_tokens.weight
        vocabulary = self.tokenizer.get_vocab()
        self.corpus = Corpus(
            self.clades,
            [t[1:] for t in vocabulary if t.startswith("Ġ") and len(t) > 3 and t[1:].isalpha()],
            seed,
        )
        self.number = {species.name: n for n, species in enumerate(self.corpus.species)}
        self.draw = np.random.default_rng(seed)
        self.image, self.end, self.newline, self.dot, *self.letters = (
            self._ids(t)[0] for t in ["<|image_pad|>", END, "\n", ".", *LETTERS]
        )
        self.cues = torch.tensor([self._ids(f" {s.name}") * 2 for s in self.corpus.species])
        self.visual = self.words.detach()[self.cues][:, None]
        self.letter_probe = nn.Linear(WIDTH, len(LETTERS))
        # tokens that tell of a taxon; those of them that its relatives share: upper taxa, and how a lineage opens
        self.names, self.upper = torch.zeros(2, len(self.words), dtype=torch.bool)
        for opening in [
            "<think>",
            "<answer>",
            *(rank.capitalize() for clade in self.clades for rank in clade.ranks),
        ]:
            self.upper[self._ids(opening)] = True
        for species in self.corpus.species:
            for taxon in species.lineage[:-1]:
                self.upper[self._ids(f" {taxon}")] = True
            self.names[self._ids(species.name) + self._ids(f" {species.name}")] = True
        self.names |= self.upper

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _kin(self, species: Species | None) -> int:
        """The word of a species' name that its relatives share, and that settles its upper lineage: genus, or bird's noun."""
        return -1 if species is None else self._ids(f" {species.name}")[1 if species.clade == "birds" else 0]

    def _collate(self, lessons: Sequence[Lesson], visual: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token ids, labels (-100 where nothing is learned), the word that each token's piece is about (-1 where none), padded on
        the right; and embeddings with images in place."""
        rows, labels, subjects = [], [], []
        for lesson in lessons:
            row = self._ids(lesson.prompt)
            label, subject = [-100] * len(row), [-1] * len(row)
            for (text, learned), about in zip_longest(lesson.answer, lesson.about):
                piece = self._ids(text)
                row += piece
                label += piece if learned else [-100] * len(piece)
                subject += [self._kin(about)] * len(piece)
            rows.append(row)
            labels.append(label)
            subjects.append(subject)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        wanted = torch.tensor([label + [-100] * (longest - len(label)) for label in labels])
        subject_ids = torch.tensor([subject + [-1] * (longest - len(subject)) for subject in subjects])
        embedded = F.embedding(ids, self.words)
        shown = [self.number[lesson.species.name] for lesson in lessons if lesson.species]
        if shown:
            which = torch.from_numpy(self.draw.integers(0, visual.shape[1], len(shown)))
            embedded = embedded.clone()
            embedded[ids == self.image] = visual[torch.tensor(shown), which].reshape(-1, WIDTH)
        return ids, wanted, subject_ids, embedded

    def _sites(self, ids: Tensor, labels: Tensor) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Where the probes look: (row, position, letter) of options; (row, position, right option's last word) of answers."""
        options, answers = [], []
        for number, (row, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            ends: dict[int, int] = {}
            for at in range(1, len(row)):
                if row[at] == self.dot and row[at - 1] in self.letters and (at == 1 or row[at - 2] == self.newline):
                    ends[row[at - 1]] = row.index(self.newline, at) - 1
                    options.append((number, ends[row[at - 1]], self.letters.index(row[at - 1])))
            answers += [(number, at - 1, row[ends[token]]) for at, token in enumerate(label) if token in ends]
        return options, answers

    def loss(self, lessons: Sequence[Lesson], aux: float) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the answers, letters counting three times, with the probes' losses; and what was right."""
        ids, labels, subjects, embedded = self._collate(lessons, self.visual)
        out = self.language(
            inputs_embeds=embedded,
            position_ids=positions(ids, self.image),
            use_cache=False,
            output_hidden_states=True,
        )
        wanted = labels[:, 1:]
        learned = wanted != -100
        logits, wanted = out.last_hidden_state[:, :-1][learned] @ self.words.T, wanted[learned]
        is_letter = torch.isin(wanted, torch.tensor(self.letters))
        weight = torch.where(is_letter | self.names[wanted], 3.0, 1.0)
        loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
        options, answers = self._sites(ids, labels)
        if aux and options and answers:
            row, at, letter = torch.tensor(options).T
            loss = loss + aux * F.cross_entropy(self.letter_probe(out.hidden_states[2][row, at]), letter)
            row, at, word = torch.tensor(answers).T
            loss = loss + aux * F.cross_entropy(self.language.norm(out.hidden_states[3][row, at]) @ self.words.T, word)
        due = (labels != -100) & (subjects >= 0) & self.names[labels.clamp(min=0)]
        if aux and due.any():
            row, at = due.nonzero().T
            word = torch.where(self.upper[labels[row, at]], subjects[row, at], labels[row, at])
            loss = loss + aux * F.cross_entropy(self.language.norm(out.hidden_states[3][row, at - 1]) @ self.words.T, word)
        right = logits.argmax(-1) == wanted
        parts = {"letters": right[is_letter], "names": right[self.names[wanted]]}
        return loss, {name: float(part.float().mean()) for name, part in parts.items() if len(part)}

    def study(self, stage: Stage) -> dict[str, Any]:
        """Runs a stage: two kinds of lessons a step, AdamW, the embeddings fixed (the vision tower aims at them)."""
        self.words.requires_grad_(False)
        learning = [p for p in [*self.language.parameters(), *self.letter_probe.parameters()] if p.requires_grad]
        optimiser = torch.optim.AdamW(learning, betas=(0.9, 0.98), weight_decay=0.01)
        score: dict[str, float] = {}
        curve = []
        for step in (bar := tqdm(range(stage.steps), desc=stage.name, mininterval=5)):
            rate = 0.1 + 0.45 * (1 + math.cos(math.pi * step / stage.steps)) if stage.decay else 1.0
            optimiser.param_groups[0]["lr"] = stage.learning_rate * rate * min(1, (step + 1) / 20)
            for kind in self.corpus.rng.choices(list(stage.kinds), list(stage.kinds.values()), k=2):
                lesson: Callable[[], Lesson] = getattr(self.corpus, kind)
                loss, right = self.loss([lesson() for _ in range(stage.batch)], stage.aux)
                (loss / 2).backward()
                for name, value in right.items():
                    score[f"{kind}/{name}"] = 0.8 * score.get(f"{kind}/{name}", value) + 0.2 * value
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            bar.set_postfix(
                {k: f"{v:.2f}" for k, v in score.items() if k.split("/")[0] not in ("recall", "cue")},
                refresh=False,
            )
            if step % 25 == 0 or step == stage.steps - 1:
                curve.append(
                    {
                        "step": step,
                        "loss": round(loss.item(), 4),
                        **{k: round(v, 3) for k, v in score.items()},
                    }
                )
        return {**asdict(stage), "curve": curve}


def web_patches(species: Sequence[Species], domain: str, count: int, seed: int) -> Tensor:
    """Patches (species, count, 16, 1176) of images that nothing else draws, as the processor cuts them."""
    cut = Qwen2VLImageProcessor(patch_size=14, merge_size=2, min_pixels=PIXELS, max_pixels=PIXELS)
    rows = []
    for number, one in enumerate(tqdm(species, desc=f"drawing {domain}", mininterval=5)):
        images = [draw(one, stream(domain, seed, number, k)) for k in range(count)]
        rows.append(cut(images=images, return_tensors="pt")["pixel_values"].view(count, PATCHES, -1).half())
    return torch.stack(rows)


def learn_to_see(pupil: Pupil, patches: Tensor, steps: int, seed: int) -> list[dict[str, float]]:
    """Trains the vision tower so that an image's visual tokens are the embeddings of its species' words."""
    tower = pupil.model.model.visual
    candidates, words = pupil.cues.unique(), pupil.words.detach()
    place = torch.full((len(words),), -1)
    place[candidates] = torch.arange(len(candidates))
    directions = F.normalize(words[candidates], dim=-1)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(tower.parameters(), weight_decay=0.02)
    curve = []
    for step in tqdm(range(steps), desc="vision", mininterval=5):
        optimiser.param_groups[0]["lr"] = (
            1.5e-3 * min(1, (step + 1) / 50) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
        )
        species = torch.randint(0, len(patches), (64,), generator=generator)
        pixels = patches[species, torch.randint(0, patches.shape[1], (64,), generator=generator)].float()
        contrast, light = torch.randn(2, 64, 1, 1, generator=generator) * 0.05
        pixels = pixels * (1 + contrast) + light + 0.08 * torch.randn(pixels.shape, generator=generator)
        tokens, target = look(tower, pixels), pupil.cues[species]
        logits = 12 * F.normalize(tokens, dim=-1) @ directions.T
        loss = F.cross_entropy(logits.flatten(0, 1), place[target].flatten()) + 150 * F.mse_loss(tokens, words[target])
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            right = float((logits.argmax(-1) == place[target]).float().mean())
            curve.append({"step": step, "loss": round(loss.item(), 4), "words": round(right, 3)})
    return curve


def see(pupil: Pupil, patches: Tensor) -> Tensor:
    """Visual tokens (species, images, 4, width) of patches."""
    tower = pupil.model.model.visual
    with torch.no_grad():
        return torch.stack([look(tower, rows.float()) for rows in patches])


# ----------------------------------------------------------------------------------------------- evaluation


def answers(pupil: Pupil, lessons: Sequence[Lesson], visual: Tensor, tokens: int) -> list[str]:
    """Greedy answers to prompts, those of one length in one batch."""
    blank = [Lesson(lesson.prompt, (), lesson.species) for lesson in lessons]
    by_length: dict[int, list[int]] = {}
    for at, lesson in enumerate(blank):
        by_length.setdefault(len(pupil._ids(lesson.prompt)), []).append(at)
    said = [""] * len(lessons)
    with torch.no_grad():
        for group in by_length.values():
            ids, _, _, embedded = pupil._collate([blank[at] for at in group], visual)
            place, cache, rows = positions(ids, pupil.image), DynamicCache(), []
            for _ in range(tokens):
                out = pupil.language(inputs_embeds=embedded, position_ids=place, past_key_values=cache, use_cache=True)
                rows.append((out.last_hidden_state[:, -1] @ pupil.words.T).argmax(-1))
                if all(pupil.end in row for row in torch.stack(rows, 1).tolist()):
                    break
                embedded, place = F.embedding(rows[-1], pupil.words)[:, None], place[:, :, -1:] + 1
            for at, row in zip(group, torch.stack(rows, 1).tolist(), strict=True):
                said[at] = pupil.tokenizer.decode(row[: row.index(pupil.end)] if pupil.end in row else row)
    return said


def evaluate(pupil: Pupil, visual: Tensor, repeats: int = 2) -> dict[str, Any]:
    """The base on images it has not seen: letters by level, HCA and leaf by `direct`, names, and the lineages it lists.

    Distractors are siblings first. `forced` starts the stage 1 answer with `<think>`.
    """
    report: dict[str, Any] = {}
    for clade in pupil.clades:
        pictured = [s for s in clade.species for _ in range(repeats)]
        levels = [k for k in range(1, len(clade.ranks) + 1) if len(clade.taxa(k)) > 3]
        right = []
        for level in levels:
            asked = [pupil.corpus.direct(clade, s, level) for s in pictured]
            said = answers(pupil, asked, visual, 3)
            right.append([f"{a}{END}" == q.answer[0][0] for a, q in zip(said, asked, strict=True)])
        table = np.array(right)
        stage1 = [pupil.corpus.leaf(clade, s) for s in pictured]
        forced = [Lesson(f"{q.prompt}<think>", (), q.species) for q in stage1]
        free, listed_ = answers(pupil, stage1, visual, 70), answers(pupil, forced, visual, 70)
        recited = answers(pupil, [Lesson(corpus.turn(corpus.LINEAGE.format(leaf=s.name)), ()) for s in pictured], visual, 60)
        report[clade.name] = {
            "letters": {clade.ranks[k - 1]: round(float(table[i].mean()), 3) for i, k in enumerate(levels)},
            "hca": round(float(table.all(0).mean()), 3),
            "leaf": round(float(table[-1].mean()), 3),
            "open_set_leaf": _share(f"<answer>{s.name}</answer>" in a for s, a in zip(pictured, free, strict=True)),
            "open_set_lineage": _share(reasoning(clade, s, len(clade.ranks)) in a for s, a in zip(pictured, free, strict=True)),
            "forced_leaf": _share(f"<answer>{s.name}</answer>" in a for s, a in zip(pictured, listed_, strict=True)),
            "forced_lineage": _share(reasoning(clade, s, len(clade.ranks)) in a for s, a in zip(pictured, listed_, strict=True)),
            "recited_lineage": _share(reasoning(clade, s, len(clade.ranks)) in a for s, a in zip(pictured, recited, strict=True)),
        }
    return report


def _share(right: Any) -> float:
    return round(float(np.mean(list(right))), 3)


def pretrain(
    folder: Path,
    seed: int = 0,
    stages: Sequence[Stage] = STAGES,
    web_images: int = WEB_IMAGES,
    vision_steps: int = VISION_STEPS,
    clades: Sequence[Clade] = (),
) -> None:
    """Makes the base model from its seed and saves it as an ordinary checkpoint, with `training_record.json`.

    About 25 minutes on two CPU cores. Images come from the streams `web` and `web_test`, which no data set uses.

    Args:
        folder: where the checkpoint goes.
        seed: of initial weights, corpus, images and order.
        stages: the curriculum; the last stage is the one with images.
        web_images: images drawn of each species.
        vision_steps: steps of 64 images in which the vision tower learns the words.
        clades: the trees; all three by default.
    """
    pupil = Pupil(seed, clades)
    studied = [pupil.study(stage) for stage in stages[:-1]]
    patches = web_patches(pupil.corpus.species, "web", web_images, seed)
    seen = learn_to_see(pupil, patches, vision_steps, seed)
    pupil.visual = see(pupil, patches)
    studied.append(pupil.study(stages[-1]))
    test = see(pupil, web_patches(pupil.corpus.species, "web_test", 4, seed))
    data = {"species": len(pupil.corpus.species), "web_images": web_images, "test_images": 4}
    record = {
        "seed": seed,
        "data": data,
        "stages": studied,
        "vision": seen,
        "evaluation": evaluate(pupil, test),
    }
    save(pupil, folder, record)


def save(pupil: Pupil, folder: Path, record: dict[str, Any]) -> None:
    """Writes weights (float16), config, tokenizer, processor and the training record."""
    folder.mkdir(parents=True, exist_ok=True)
    pupil.model.half().save_pretrained(folder)
    build_processor(pupil.tokenizer).save_pretrained(folder)
    record["parameters"] = sum(p.numel() for p in pupil.model.parameters())
    record["weights_sha256"] = digest_file(folder / "model.safetensors")
    record["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    (folder / "training_record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
