"""The three ways in which Obverse says no.

Each message is one sentence that says what was expected, what came, and what to do. The command line prints it without
a traceback and ends with exit code 2.
"""

__all__ = ["ObverseError", "InputError", "FormatError", "NumericsError"]


class ObverseError(Exception):
    """Base of every error that Obverse raises on purpose."""


class InputError(ObverseError, ValueError):
    """An argument, option or measurement is not what the function can work with (shape, dtype, unit, range, NaN)."""


class FormatError(ObverseError, ValueError):
    """A file is truncated, hostile, of another format, or its checksum does not match."""


class NumericsError(ObverseError, ArithmeticError):
    """A computation failed a check that it must pass, such as an adjoint test or a convergence test."""
