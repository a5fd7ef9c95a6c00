"""Trains a model: python train.py [experiment=NAME] [KEY=VALUE]; see asrlib/configs/train.yaml.

The exit status is 0 when the training is finished, 75 when it stopped before (SIGTERM, Ctrl-C,
trainer.max_hours) and the same command goes on, 1 after an error. On several GPUs: torchrun
--nproc-per-node=2 train.py …
"""

import sys

import hydra
from omegaconf import DictConfig

from asrlib.training import train
from asrlib.training.stopping import STATUS


@hydra.main(config_path="asrlib/configs", config_name="train", version_base=None)
def main(config: DictConfig) -> None:
    progress = train(config)
    if not progress.finished:
        sys.exit(STATUS)
    print(
        f"best on dev: WER {progress.best_wer:.2f} %, CER {progress.best_cer:.2f} %, "
        f"epoch {progress.best_epoch}; checkpoints, logs and figures in {config.run_dir}"
    )


if __name__ == "__main__":
    main()
