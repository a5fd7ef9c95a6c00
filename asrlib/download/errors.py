"""What can go wrong with a resource, and with one of its sources."""


class DownloadError(RuntimeError):
    """A resource could not be had; the message says what a person can do."""


class SourceError(Exception):
    """One source does not help; the next one may."""


class WrongBytesError(SourceError):
    """The file that came, or was there, is not the published one."""


class TransientError(SourceError):
    """The same source may help if asked again."""


class UnreachableError(TransientError):
    """No connection was made: without a network every source says so."""
