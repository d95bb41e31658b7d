"""Training and evaluation of the published networks: what ``train_imagenet.py`` calls."""
