"""Errors a person can act on: one line that says what was expected, what came and what to do."""

import signal


class ReplimatError(Exception):
    """Base of every error the command line prints as one line instead of a traceback."""


class StorageError(ReplimatError):
    """A file could not be written: no space left, or no permission. Nothing of it was."""


class CardError(ReplimatError):
    """A paper or dataset card, or a claims file, is malformed, missing or names something unknown."""


class SourceError(ReplimatError):
    """A file could not be found or fetched."""


class IntegrityError(SourceError):
    """A file is not, byte for byte, the one that was expected."""


class DataError(ReplimatError):
    """A dataset, split or prepared file holds something that cannot be used."""


class ExperimentError(ReplimatError):
    """An experiment was asked for that does not exist, or its run files are missing or inconsistent."""


class Stopped(SystemExit):
    """The process was asked to end by a signal. Not an Exception: a seed that was stopped has not failed."""

    def __init__(self, message: str, number: signal.Signals = signal.SIGTERM):
        super().__init__(128 + number)  # exit code of a process that this signal ended
        self.message, self.number = message, number

    def __str__(self) -> str:
        return self.message
