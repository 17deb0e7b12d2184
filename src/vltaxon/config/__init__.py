"""The config: closed models for config.yaml and for every small file beside it."""
