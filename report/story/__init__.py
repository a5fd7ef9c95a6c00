"""The sections of the report. Each returns Markdown and pictures, all of it computed from committed files."""

from report.story.closing import bonuses, limits
from report.story.contrasts import ablations, labels, spellers
from report.story.costs import augmentations, budget, faults, loading, recognition, speed
from report.story.decoding import attention, decoder_speed, decoders, errors, pairs
from report.story.evidence import Picture
from report.story.five_hours import five_hours
from report.story.models import curves, headline, logged, notes
from report.story.reproduction import recipes, reproduce, stages

__all__ = [
    "Picture",
    "ablations",
    "attention",
    "augmentations",
    "bonuses",
    "budget",
    "curves",
    "decoder_speed",
    "decoders",
    "errors",
    "faults",
    "five_hours",
    "headline",
    "labels",
    "limits",
    "loading",
    "logged",
    "notes",
    "pairs",
    "recipes",
    "recognition",
    "reproduce",
    "speed",
    "spellers",
    "stages",
]
