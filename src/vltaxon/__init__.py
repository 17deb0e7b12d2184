"""vltaxon: hierarchical recognition with vision-language models, trained and measured as one workflow."""

__version__ = "0.1.0"
