"""Metrics: SQL files that say what they are, their aggregates, and intervals."""
