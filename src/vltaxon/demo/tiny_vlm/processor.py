"""The tiny model's tokenizer, image processor and chat template."""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vltaxon.demo.clades import Clade
from vltaxon.demo.tiny_vlm.corpus import (
    ANSWER,
    DIRECT,
    END,
    EXPERT,
    HELPFUL,
    LEAF,
    LINEAGE,
    MATCH,
    NAME,
    question,
)

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
_PIXELS = 56 * 56
# The markers of generation tell TRL which tokens are the assistant's, for a loss on every answer.
_TEMPLATE = (
    "{% macro said(m) %}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endmacro %}"
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ said(m) }}{% endgeneration %}"
    "{% else %}{{ said(m) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(clades: Sequence[Clade]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which each word of taxa and prompts, and each tag, is one token."""
    tokenizer = Tokenizer(models.BPE())
    words = r" ?</?\p{L}+>|\p{L}+'s| ?\p{L}+(?:-\p{L}+)*|\p{N}| ?[^\s\p{L}\p{N}]|\s"
    split_words = pre_tokenizers.Split(Regex(words), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split_words, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=3,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(clades) * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=SPECIAL_TOKENS[1:],
        padding_side="left",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _tokenizer_texts(clades: Sequence[Clade]) -> list[str]:
    """Texts that hold every word of the prompts and taxa, often enough to become one token each."""
    texts = [
        EXPERT,
        HELPFUL,
        DIRECT,
        ANSWER,
        MATCH,
        LINEAGE,
        "user\nassistant\nsystem\n",
    ]
    texts += ["A B C D <think> </think> <answer> </answer><think></think><answer></answer>"] * 20
    for clade in clades:
        word = clade.name[:-1]
        texts.append(LEAF.format(word=word, ranks=", ".join(clade.ranks)))
        texts += [NAME.format(word=word), f"{word}\n{word}s"]
        for level, rank in enumerate(clade.ranks, 1):
            texts.append(f"{question(clade, level)} {rank}")
            texts.append(f"{rank.capitalize()}: {rank.capitalize()}")
        for species in clade.species:
            texts += [" " + " ".join(species.lineage)] * 4
            texts.append(f"{species.name}\n{species.name}\n{species.name}")
    return texts


def build_image_processor() -> Qwen2VLImageProcessor:
    """Build Qwen2.5-VL's image processor at 56 x 56 pixels: 16 patches, four visual tokens."""
    return Qwen2VLImageProcessor(patch_size=14, merge_size=2, min_pixels=_PIXELS, max_pixels=_PIXELS)


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Build Qwen2.5-VL's processor around the tiny tokenizer and image processor."""
    return Qwen2_5_VLProcessor(
        image_processor=build_image_processor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=_TEMPLATE,
    )
