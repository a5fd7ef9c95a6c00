"""Word n-gram language models as files: spelled as our transcripts are, estimated, measured."""

from asrlib.language_model.rewrite import prepare, prepared

__all__ = ["prepare", "prepared"]
