"""A dual encoder of SigLIP's kind in miniature, trained here on captioned synthetic organisms.

The method is that of Zhai et al., arXiv 2303.15343. The encoder stands where SigLIP so400m stands in the
benchmark: it mines the distractors and answers zero-shot. Its images come from a stream of their own, so it
has seen the taxa, as web-trained encoders have, but no image of any data set.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vltaxon.demo.clades import Species, world
from vltaxon.demo.organisms import draw, stream
from vltaxon.provenance import atomic, digest_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

CAPTION = "a photo of a {}."
WEIGHTS = "open_clip_model.safetensors"
_MODEL: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 56,
        "patch_size": 14,
        "width": 96,
        "layers": 3,
        "head_width": 32,
        "mlp_ratio": 2.0,
        "pool_type": "avg",
    },
    "text_cfg": {  # no causal mask, and the last token taken, as SigLIP's
        "context_length": 24,
        "vocab_size": 800,
        "width": 64,
        "heads": 2,
        "layers": 1,
        "no_causal_mask": True,
        "pool_type": "last",
        "proj_bias": True,
        "hf_tokenizer_name": "in this folder",
    },
}
_PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def train(
    folder: Path,
    seed: int = 0,
    steps: int = 1200,
    batch_size: int = 96,
    images_per_species: int = 20,
    threads: int = 1,
) -> None:
    """Train the encoder and save it as a folder that `open_clip` loads as `local-dir:FOLDER`.

    `training_record.json` says how it was trained.

    Args:
        folder: written; its config file last, so that a folder that loads is whole.
        seed: of the weights, the images and the captions; the same seed and threads give the same weights.
        steps: optimiser steps (AdamW, one cosine cycle) with open_clip's SigLIP loss.
        batch_size: image-caption pairs in a step.
        images_per_species: freshly drawn; each gets a new caption whenever it is seen, with a taxon of its
            lineage.
        threads: of torch; fixed, because sums depend on it.
    """
    import open_clip
    import safetensors.torch
    import torch
    from tqdm import tqdm

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    species = [leaf for clade in world().values() for leaf in clade.species]
    architecture = {key: value for key, value in _MODEL.items() if key != "custom_text"}
    model = open_clip.CustomTextCLIP(**architecture, init_logit_scale=3.0)
    taxa = sorted({taxon for leaf in species for taxon in leaf.lineage})
    build_tokenizer(taxa).save_pretrained(folder)
    tokenize = open_clip.tokenizer.HFTokenizer(folder, context_length=_MODEL["text_cfg"]["context_length"])
    tokens = {taxon: tokenize(CAPTION.format(taxon))[0] for taxon in taxa}
    pixels = _draw_images(species, seed, images_per_species)
    siglip_loss = open_clip.loss.SigLipLoss()
    adamw = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.05, "fused": True}
    optimiser = torch.optim.AdamW(model.parameters(), **adamw)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    rng = stream("captions", seed)
    model.train()
    curve = []
    for step in tqdm(range(steps), desc="train the tiny encoder", unit=" steps", mininterval=5):
        rows = rng.integers(len(pixels), size=batch_size)
        lineages = [species[row // images_per_species].lineage for row in rows]
        texts = torch.stack([tokens[_choose_taxon(lineage, rng)] for lineage in lineages])
        image, text, scale, bias = model(pixels[rows].float() / 127.5 - 1, texts)
        loss = siglip_loss(image, text, scale, bias)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            curve.append({"step": step, "loss": round(loss.item(), 4)})
    torch.set_num_threads(threads_before)
    with atomic(folder / WEIGHTS) as part:
        safetensors.torch.save_file({name: value.half() for name, value in model.state_dict().items()}, part)
    record = {
        "seed": seed,
        "data": {"species": len(species), "images_per_species": images_per_species},
        "training": {"steps": steps, "batch": batch_size, "threads": threads, "curve": curve},
        "parameters": sum(value.numel() for value in model.parameters()),
        "weights_sha256": digest_file(folder / WEIGHTS),
        "versions": {"torch": torch.__version__, "open_clip": open_clip.__version__},
    }
    _write_json(folder / "training_record.json", record)
    _write_json(folder / "open_clip_config.json", {"model_cfg": _MODEL, "preprocess_cfg": _PREPROCESS})


def build_tokenizer(taxa: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Learn a byte-level BPE of the captions of taxa, without case, as SigLIP's tokenizers are.

    Args:
        taxa: names.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    end = "</s>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_MODEL["text_cfg"]["vocab_size"],
        special_tokens=[end],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(CAPTION.format, taxa), trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A " + end, special_tokens=[(end, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end)


def _write_json(path: Path, value: object) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _choose_taxon(lineage: tuple[str, ...], rng: "np.random.Generator") -> str:
    """Choose the taxon that a caption names: the deeper, the likelier, as people write captions."""
    return lineage[int((rng.random() ** 0.5) * len(lineage))]


def _draw_images(species: Sequence[Species], seed: int, count: int) -> "Tensor":
    """Draw `count` images of each species in turn: uint8 tensor (species x count, 3, side, side)."""
    import numpy as np
    import torch
    from tqdm import tqdm

    side = _MODEL["vision_cfg"]["image_size"]
    images = []
    progress = tqdm(species, desc="draw captioned images", unit=" species", mininterval=5)
    for number, leaf in enumerate(progress):
        images += [np.asarray(draw(leaf, stream("web_pairs", seed, number, k), side)) for k in range(count)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
