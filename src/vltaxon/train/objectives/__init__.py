"""Objectives of training, one file each: its kind of step (a `Step`), and how that is trained.

A file that is put here is found: its name is what `kind:` says in config/recipes/*.yaml. It is imported while
the Snakefile is parsed, so whatever is heavy it imports inside its functions.
"""
