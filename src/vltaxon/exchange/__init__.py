"""Exchange with the benchmark: its questions in, our questions and answers out, in its formats.

It is that of Tan et al. (arXiv 2505.24840). Questions are JSON lines, a record an image: `image` (a path),
`label`, `split`, and for k = 1, 2, ... from the root `level{k}` (the taxon, lower case) and
`choices_level{k}` (the options, truth included, in the order shown). A null level is not asked and leaves no
gap. Answers are one JSON list, an entry an image: per level asked `ground_truth_level{k}`,
`prediction_level{k}` (the completion), `predicted_level{k}_letter`, `predicted_level{k}`, `choices_level{k}`
(letter -> option).
"""
