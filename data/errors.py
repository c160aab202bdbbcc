"""The errors of the whole house: one class, and a child for each cause.

The command line prints the message without a traceback and leaves with `exit_code`. A message says what is wrong,
where, and what to do about it; it never quotes prompt text.
"""


class CrywolfError(Exception):
    """Anything that crywolf refuses or cannot do; `exit_code` is what the command line leaves with."""

    exit_code = 2


class BadInput(CrywolfError):  # noqa: N818 - named by its cause, as the design says
    """A file, a row, a value or an option that cannot be used."""


class MissingExtra(CrywolfError):  # noqa: N818 - named by its cause, as the design says
    """An optional package is not installed; the message names the one to install."""


class GateFailed(CrywolfError):  # noqa: N818 - named by its cause, as the design says
    """The work is done, but a gate of it does not hold."""

    exit_code = 1


class CorruptPackage(CrywolfError):  # noqa: N818 - named by its cause, as the design says
    """A model package whose files are missing, changed or unreadable."""
