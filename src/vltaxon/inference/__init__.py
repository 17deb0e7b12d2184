"""Inference: engines that answer requests, the journal of their answers, and the stages of a protocol."""
