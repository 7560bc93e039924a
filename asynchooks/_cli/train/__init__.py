"""``asynchooks train``: a run that a configuration file describes."""

from asynchooks._cli.train._arguments import ArgparseStyle
from asynchooks._cli.train._command import EXIT_CODES, train

__all__ = ["EXIT_CODES", "ArgparseStyle", "train"]
