"""The published networks with maximum-entropy pooling: ``create_model`` and ``list_models``."""

from models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
