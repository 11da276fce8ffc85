"""The one exception for mistakes that a user can fix."""


class UserError(Exception):
    """Something the user gave cannot be used; the message says what was expected, what was found and what to do.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


def in_one_line(error: BaseException) -> str:
    """The kind of an exception and its message."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
