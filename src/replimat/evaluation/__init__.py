"""Metrics, one file per kind. Every one takes (target, prediction) in that order and returns plain floats by name."""
