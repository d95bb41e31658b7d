"""``replace_pooling`` in other people's networks: ``experiments/surgery_survey.py`` runs it."""
