"""Trains a model: python train.py [experiment=NAME] [KEY=VALUE]; see asrlib/configs/train.yaml.

The exit status is 0 when the training is finished, 75 when it stopped before (SIGTERM, Ctrl-C,
trainer.max_hours) and the same command goes on, 1 after an error. On several GPUs: torchrun
--nproc-per-node=2 train.py …
"""

import sys

import hydra
from omegaconf import DictConfig

from asrlib.configs import readable
from asrlib.training import train
from asrlib.training.stopping import STATUS


@hydra.main(config_path="asrlib/configs", config_name="train", version_base=None)
def main(config: DictConfig) -> None:
    if not train(config).finished:
        sys.exit(STATUS)


if __name__ == "__main__":
    sys.argv[1:] = readable(sys.argv[1:])
    main()
