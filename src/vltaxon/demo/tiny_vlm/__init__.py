"""A tiny Qwen2.5-VL, pre-trained from nothing on the synthetic clades: the demo's base model.

The architecture, the processor and the form of the checkpoint are the real ones; only the sizes are small.
Four things let so few parameters learn to read an image *and* to choose a letter, within minutes on a CPU:

- **Words for pixels** (`vision`). The vision tower learns to turn an image's four visual tokens into the
embeddings of the words that name its species. An image then reads like a name, so what is learned about names
in text holds for images.
- **Structured initialisation** (`initialisation`). Some attention heads start as look-back heads, others as
  induction heads.
- **Deep supervision** (`pupil`). Two probes, thrown away in the end, ask the second layer for an option's
letter at the option, and the third for the right option's word where the letter is due.
- **A curriculum** (`curriculum`, `corpus`). Recall in text, then bare questions, then the true prompt, and
only then everything together.
"""

from vltaxon.demo.tiny_vlm.pretraining import pretrain

__all__ = ["pretrain"]
