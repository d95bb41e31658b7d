"""The families' arithmetic for any window function (:mod:`..functions`), whose module each of these
is given as the global ``function`` (:mod:`..loading`)."""
