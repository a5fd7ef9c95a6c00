"""Checkpoints, language models and corpora, fetched by the name they have in one manifest."""

from asrlib.download.errors import DownloadError
from asrlib.download.fetch import Downloader
from asrlib.download.manifest import MANIFEST, Manifest, Resource, Source, load_manifest
from asrlib.download.transfer import Patience

__all__ = [
    "MANIFEST",
    "DownloadError",
    "Downloader",
    "Manifest",
    "Patience",
    "Resource",
    "Source",
    "load_manifest",
]
