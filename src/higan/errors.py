"""Every error that is not the caller's argument.

Wrong arguments raise ``ValueError``. What goes wrong with files and with the world outside raises one of these::

    HiganError
    ├── CheckpointError           a weight file cannot be used
    │   ├── UnknownFormatError    … because nothing here knows its layout
    │   ├── CorruptFileError      … because it is truncated, damaged or contradicts itself
    │   └── UnsafePickleError     … because reading it would run code it carries
    ├── MissingWeightsError       a weight file is not where it was looked for
    ├── MissingExtraError         an optional dependency is not installed
    ├── BrokenModuleError         a module of your own, named ``module:name``, fails
    ├── RunError                  a run folder cannot be used
    │   ├── RunMismatchError      … because it holds another run
    │   ├── CorruptRunError       … because a file in it is missing, truncated or damaged
    │   ├── RunBusyError          … because another process is writing it
    │   └── RunWriteError         … because the disk is full or refuses
    ├── EngineError               the workers die or cannot be reached
    ├── UserStudyError            a study folder or a file of answers cannot be used
    ├── GeneratorError            a generator breaks its contract
    └── ScorerError               a scorer or segmenter breaks its contract
"""

from __future__ import annotations

__all__ = [
    "BrokenModuleError",
    "CheckpointError",
    "CorruptFileError",
    "CorruptRunError",
    "EngineError",
    "GeneratorError",
    "HiganError",
    "MissingExtraError",
    "MissingWeightsError",
    "RunBusyError",
    "RunError",
    "RunMismatchError",
    "RunWriteError",
    "ScorerError",
    "UnknownFormatError",
    "UnsafePickleError",
    "UserStudyError",
]


class HiganError(Exception):
    """Root of the tree; the command line prints it without a traceback."""


class CheckpointError(HiganError):
    """A weight file cannot be used."""


class UnknownFormatError(CheckpointError):
    """No reader here knows the layout of this file."""


class CorruptFileError(CheckpointError):
    """The file is truncated, damaged or contradicts itself."""


class UnsafePickleError(CheckpointError):
    """The file asks for something that only running code could give."""


class MissingWeightsError(HiganError):
    """A weight file is not where it was looked for."""


class MissingExtraError(HiganError):
    """An optional dependency is not installed; the message names the extra."""


class BrokenModuleError(HiganError):
    """A module of the user's own, named ``module:name``, cannot be imported, or fails to make what it names."""


class RunError(HiganError):
    """A run folder cannot be used."""


class RunMismatchError(RunError):
    """The folder already holds a run made with other settings."""


class CorruptRunError(RunError):
    """A file of the run is missing, truncated or damaged."""


class RunBusyError(RunError):
    """Another process is writing the run folder."""


class RunWriteError(RunError):
    """The disk is full, or does not let us write."""


class EngineError(HiganError):
    """Workers die again and again, or cannot be reached."""


class UserStudyError(HiganError):
    """The folder of a user study, or a file of answers, is missing, damaged or of another study."""


class GeneratorError(HiganError):
    """A generator returned something its contract does not allow."""


class ScorerError(HiganError):
    """A scorer or segmenter returned something its contract does not allow."""
