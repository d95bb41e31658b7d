"""The one error that a person at the command line can put right."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what to do about it.

    ``train_imagenet.py`` prints it as one line on the standard error and exits with code 2.
    """
