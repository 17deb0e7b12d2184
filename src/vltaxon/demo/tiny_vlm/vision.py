"""The tiny model's eyes: the vision tower learns to write an image's species in words."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vltaxon.demo.clades import Species
from vltaxon.demo.organisms import draw, stream
from vltaxon.demo.tiny_vlm.architecture import PATCHES, visual_tokens
from vltaxon.demo.tiny_vlm.processor import build_image_processor
from vltaxon.demo.tiny_vlm.pupil import Pupil

_BATCH = 64  # images


def draw_patches(species: Sequence[Species], domain: str, count: int, seed: int) -> Tensor:
    """Draw images and cut them into patches, as the processor does.

    Args:
        species: what to draw.
        domain: of the stream; one that nothing else draws from.
        count: images of each species.
        seed: of the images.

    Returns:
        (species, count, 16, 1176) patches, float16.
    """
    cut = build_image_processor()
    rows = []
    for number, leaf in enumerate(tqdm(species, desc=f"drawing {domain}", mininterval=5)):
        images = [draw(leaf, stream(domain, seed, number, k)) for k in range(count)]
        rows.append(cut(images=images, return_tensors="pt")["pixel_values"].view(count, PATCHES, -1).half())
    return torch.stack(rows)


def train_tower(pupil: Pupil, patches: Tensor, steps: int, seed: int) -> list[dict[str, float]]:
    """Train the vision tower so that an image's visual tokens are the embeddings of its species' words.

    Args:
        pupil: the model in training.
        patches: (species, images, 16, 1176).
        steps: of 64 images.
        seed: of the order of the images, and of their contrast, light and noise.

    Returns:
        The curve: step, loss, and share of the words that were right.
    """
    tower = pupil.model.model.visual
    candidates, words = pupil.species_words.unique(), pupil.words.detach()
    place = torch.full((len(words),), -1)  # of a word among the candidates
    place[candidates] = torch.arange(len(candidates))
    directions = F.normalize(words[candidates], dim=-1)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(tower.parameters(), weight_decay=0.02)
    curve = []
    for step in tqdm(range(steps), desc="vision", mininterval=5):
        optimiser.param_groups[0]["lr"] = _learning_rate(step, steps)
        species, pixels = _draw_batch(patches, generator)
        tokens, target = visual_tokens(tower, pixels), pupil.species_words[species]
        logits = 12 * F.normalize(tokens, dim=-1) @ directions.T
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), place[target].flatten())
        loss = cross_entropy + 150 * F.mse_loss(tokens, words[target])
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 0 or step == steps - 1:
            right = float((logits.argmax(-1) == place[target]).float().mean())
            curve.append({"step": step, "loss": round(loss.item(), 4), "words": round(right, 3)})
    return curve


def _draw_batch(patches: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw numbers of species (64) and patches (64, 16, 1176), varied in contrast, light and noise."""
    species = torch.randint(0, len(patches), (_BATCH,), generator=generator)
    which = torch.randint(0, patches.shape[1], (_BATCH,), generator=generator)
    pixels = patches[species, which].float()
    contrast, light = torch.randn(2, _BATCH, 1, 1, generator=generator) * 0.05
    noise = torch.randn(pixels.shape, generator=generator)
    return species, pixels * (1 + contrast) + light + 0.08 * noise


def _learning_rate(step: int, steps: int) -> float:
    """The rate of a step: 50 steps of warm-up, then down along a cosine."""
    return 1.5e-3 * min(1, (step + 1) / 50) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))


def encode(pupil: Pupil, patches: Tensor) -> Tensor:
    """Turn patches into visual tokens.

    Args:
        pupil: the model in training.
        patches: (species, images, 16, 1176).

    Returns:
        (species, images, 4, width).
    """
    tower = pupil.model.model.visual
    with torch.no_grad():
        return torch.stack([visual_tokens(tower, rows.float()) for rows in patches])
