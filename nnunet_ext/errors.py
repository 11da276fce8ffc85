"""The one exception for mistakes that a user can fix."""


class UserError(Exception):
    """Something the user gave cannot be used; the message says what was expected, what was found and what to do.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """
