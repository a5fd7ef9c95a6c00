"""Data: any audio file, indexes of folders, datasets, batches."""

from asrlib.data.audio import SAMPLE_RATE, AudioError, read_audio
from asrlib.data.collate import collate
from asrlib.data.dataset import (
    CommonVoiceDataset,
    CustomDirDataset,
    DemoDataset,
    LibriSpeechDataset,
    ManifestDataset,
    ShardDataset,
    SpeechDataset,
)
from asrlib.data.mixture import MixtureDataset
from asrlib.data.sampler import BucketBatchSampler
from asrlib.data.utterance import Index, Utterance

__all__ = [
    "SAMPLE_RATE",
    "AudioError",
    "BucketBatchSampler",
    "CommonVoiceDataset",
    "CustomDirDataset",
    "DemoDataset",
    "Index",
    "LibriSpeechDataset",
    "ManifestDataset",
    "MixtureDataset",
    "ShardDataset",
    "SpeechDataset",
    "Utterance",
    "collate",
    "read_audio",
]
