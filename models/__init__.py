"""The published networks with exchangeable pooling: ``create_model`` and ``list_models``, and those
that were saved: ``from_pretrained``.

``models.resnet50(num_classes=1000, ptype="max_ent")`` and the others of ``list_models()`` are there
under their names, too, as in the published code (``models.published``).
"""

from models.pretrained import from_pretrained
from models.published import FUNCTIONS
from models.registry import create_model, list_models

__all__ = ["create_model", "from_pretrained", "list_models"]

globals().update(FUNCTIONS)
