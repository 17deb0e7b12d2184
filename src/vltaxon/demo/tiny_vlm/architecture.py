"""The tiny model: its sizes, and two parts of its forward pass written for a batch of images of one size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    apply_rotary_pos_emb_vision,
    get_vision_position_ids,
)

from vltaxon.demo.tiny_vlm.initialisation import initialise
from vltaxon.demo.tiny_vlm.processor import SPECIAL_TOKENS

WIDTH = 128  # of the language model, and of a visual token
PATCHES = 16  # of an image: 4 x 4 patches of 14 x 14 pixels, merged two by two into four visual tokens
_HEADS, _LAYERS = 4, 5


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """Build the model with its structured initialisation.

    Args:
        tokenizer: gives the vocabulary and the ids of the special tokens.
        seed: of the weights; also set as torch's global seed.

    Returns:
        The model in float32, about 1.4 million parameters with all three clades' words.
    """
    torch.manual_seed(seed)
    names = ("pad", "start", "end", "vision_start", "vision_end", "image", "video")
    ids = dict(zip(names, map(tokenizer.convert_tokens_to_ids, SPECIAL_TOKENS), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0},
            "tie_word_embeddings": True,
            "bos_token_id": ids["pad"],
            "eos_token_id": ids["end"],
            "pad_token_id": ids["pad"],
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
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        initialise(model.model.language_model, tokenizer)
    return model


def visual_tokens(tower: nn.Module, patches: Tensor) -> Tensor:
    """Run the vision tower on a batch: what its own `forward` computes, which loops over images.

    Args:
        tower: the vision tower.
        patches: (images, 16, 1176).

    Returns:
        (images, 4, width) visual tokens.
    """
    count = len(patches)
    grid = torch.tensor([[1, 4, 4]])  # of the patches of one image: time, height, width
    hidden = tower.patch_embed(patches.reshape(count * PATCHES, -1))
    angles = tower.rotary_pos_emb(hidden, get_vision_position_ids(grid, 2, kwargs={}))
    cos, sin = (angle.repeat(count, 1) for angle in angles)
    for block in tower.blocks:
        heads = block.attn.num_heads
        q, k, v = block.attn.qkv(block.norm1(hidden)).view(count * PATCHES, 3, heads, -1).unbind(1)
        q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
        q, k, v = (part.view(count, PATCHES, heads, -1).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count * PATCHES, -1)
        hidden = hidden + block.attn.proj(mixed)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return tower.merger(hidden).view(count, PATCHES // 4, -1)


def rope_positions(ids: Tensor, image_token: int) -> Tensor:
    """Compute the M-RoPE positions of rows with at most one image of 2 x 2 visual tokens.

    Args:
        ids: (rows, length) token ids.
        image_token: id of the visual tokens' placeholder.

    Returns:
        (3, rows, length): time, height and width.
    """
    image = ids == image_token
    images_before = image.cumsum(1)
    place = (images_before - 1).clamp(min=0)  # of a visual token in its image
    plain = torch.arange(ids.shape[1]).expand_as(ids)
    start = plain - place
    after = plain - 2 * ((images_before == 4) & ~image).long()  # an image of four tokens takes two positions
    offsets = (0 * place, place // 2, place % 2)
    return torch.stack([torch.where(image, start + offset, after) for offset in offsets])
