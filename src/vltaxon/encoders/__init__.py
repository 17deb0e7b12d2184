"""Encoders: images and taxa as vectors, pooled, one each."""
