"""The engines, one file each: what a model file of it may say (a `ModelSpec`).

A file that is put here is found: its name is what `engine:` says in config/models/*.yaml. One whose models write text
has a function `source` that gives a job its engine, in the file itself or in a module that it names
(`ModelSpec.source`): see `vltaxon.inference.source`.
"""
