"""Experiments with the networks, and their results."""
