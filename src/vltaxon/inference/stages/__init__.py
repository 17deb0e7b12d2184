"""The stages of a protocol: from images and questions to tables of predictions.

Stage 1 (`leaf`) asks once an image. Stage 2 answers each question: by the model (`answers`), by looking up
the ancestors of the stage 1 leaf (`lookup`), by `similarity` of embeddings, or by `chance`. Rows come in
question order, whatever the batch size, and are written window by window, so that memory does not grow with
the number of images.
"""
