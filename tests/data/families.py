"""Tiny random checkpoints of several families of vision-language models, each with its own processor and way
of chatting.

The architectures, processors and (shortened) chat templates are those of the families; the sizes, the weights
and the one byte-level vocabulary are not. An image takes a handful of tokens in each, in as many tiles as the
family cuts it into.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HIDDEN = 32
TEXT = {
    "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGLIP = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}

CHATML = (  # Qwen2-VL, Qwen3-VL
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + c['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERNVL = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% else %}{{ c['text'] }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (  # writes the start token itself, has no system role, and calls the assistant a model
    "{{ bos_token }}{% set system = messages[0]['content'][0]['text'] + '\n\n' if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages if m['role'] != 'system' %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ system if loop.first else '' }}{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>{% else %}"
    "{{ c['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
IDEFICS = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}:{% if m['content'][0]['type'] != 'image' %} {% endif %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def tokenizer(special: Sequence[str], eos: str, bos: str | None = None, **named: str) -> Any:
    """The family's special tokens and all bytes; a start token, where there is one, is put before every
    text, as by Gemma's.
    """
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer, tokens.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    names = ["<pad>", *dict.fromkeys([eos, *([bos] if bos else []), *special, *named.values()])]
    bytewise = trainers.BpeTrainer(special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    tokens.train_from_iterator([], bytewise)
    if bos:
        tokens.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokens.token_to_id(bos))]
        )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        eos_token=eos,
        bos_token=bos,
        pad_token="<pad>",
        extra_special_tokens=named,
        padding_side="left",
    )


def text_config(words: Any, **changes: Any) -> dict[str, Any]:
    """The language model's sizes and the ids of its markers."""
    ids = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    return {**TEXT, "vocab_size": len(words), **ids, **changes}


def _qwen(
    folder: Path, config: type, vision: dict[str, Any], processor: type, videos: Any, pixels: Any, **text: Any
) -> None:
    marks = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    words = tokenizer(["<|im_start|>", *marks], "<|im_end|>", image_token=marks[0], video_token=marks[1])
    ids = words.convert_tokens_to_ids(marks)
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    text = text_config(words, rope_parameters=ROPE, head_dim=HIDDEN // 2, **text)
    made = config(text_config=text, vision_config=vision, **dict(zip(names, ids, strict=True)))
    _save(folder, made, processor(pixels, words, videos, chat_template=CHATML))


def qwen2_vl(folder: Path) -> None:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2}
    pixels = hf.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112)
    _qwen(folder, hf.Qwen2VLConfig, vision, hf.Qwen2VLProcessor, hf.Qwen2VLVideoProcessor(), pixels)


def _qwen3(folder: Path, config: type, **text: Any) -> None:
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": HIDDEN,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    pixels = hf.Qwen2VLImageProcessor(
        patch_size=16, size={"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
    )
    _qwen(folder, config, vision, hf.Qwen3VLProcessor, hf.Qwen3VLVideoProcessor(), pixels, **text)


def qwen3_vl(folder: Path) -> None:
    _qwen3(folder, hf.Qwen3VLConfig)


def qwen3_vl_moe(folder: Path) -> None:
    """A mixture of experts: most of its weights are fused tensors, not linear layers."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    _qwen3(folder, hf.Qwen3VLMoeConfig, **experts)


def llava_onevision(folder: Path) -> None:
    words = tokenizer(["<|im_start|>"], "<|im_end|>", image_token="<image>", video_token="<video>")
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = hf.LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **text_config(words)},
        vision_config={**SIGLIP, "image_size": 28, "patch_size": 7},
        image_token_index=words.image_token_id, video_token_index=words.video_token_id, image_grid_pinpoints=grid,
    )  # fmt: skip
    pixels = hf.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=grid)
    videos = hf.LlavaOnevisionVideoProcessor()
    options: dict[str, Any] = {
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
        "chat_template": LLAVA,
    }
    _save(folder, config, hf.LlavaOnevisionProcessor(pixels, words, videos, **options))


def internvl(folder: Path) -> None:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
    }
    words = tokenizer(["<|im_start|>"], "<|im_end|>", **names, video_token="<video>")
    config = hf.InternVLConfig(
        text_config={"model_type": "qwen2", **text_config(words)},
        vision_config={**VISION, "image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=words.context_image_token_id, image_seq_length=4,
    )  # fmt: skip
    pixels = hf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4)
    videos = hf.InternVLVideoProcessor()
    _save(
        folder,
        config,
        hf.InternVLProcessor(pixels, words, videos, image_seq_length=4, chat_template=INTERNVL),
    )


def gemma3(folder: Path) -> None:
    names = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    words = tokenizer(["<start_of_turn>"], "<end_of_turn>", "<bos>", **names)
    config = hf.Gemma3Config(
        text_config=text_config(words, head_dim=16, sliding_window=64, query_pre_attn_scalar=16),
        vision_config={**SIGLIP, "image_size": 56, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=words.image_token_id, boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    pixels = hf.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    _save(folder, config, hf.Gemma3Processor(pixels, words, image_seq_length=4, chat_template=GEMMA))


def idefics3(folder: Path) -> None:
    places = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", *places]
    words = tokenizer(marks, "<end_of_utterance>", "<|begin_of_text|>")
    config = hf.Idefics3Config(
        text_config={"model_type": "llama", **text_config(words)}, vision_config={**VISION, "image_size": 28, "patch_size": 7},
        image_token_id=words.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    pixels = hf.Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    _save(folder, config, hf.Idefics3Processor(pixels, words, image_seq_len=4, chat_template=IDEFICS))


def _save(folder: Path, config: Any, processor: Any) -> None:
    """Draw the weights and write the checkpoint. What a model says must hang on all it is shown, not on its
    last token alone.

    So layers are drawn wide, embeddings narrow, and the output is not tied to them.
    """
    torch.manual_seed(3)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "embed_tokens" not in name:
            torch.nn.init.normal_(
                parameter, std=0.2
            )  # all of them: Gemma's projector starts at zero, and would show nothing
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


FAMILIES: dict[str, Callable[[Path], None]] = {
    build.__name__: build for build in (qwen2_vl, qwen3_vl, llava_onevision, internvl, gemma3, idefics3)
}
