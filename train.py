"""Trains a model: python train.py [experiment=NAME] [KEY=VALUE]; see asrlib/configs/train.yaml."""

import hydra
from omegaconf import DictConfig

from asrlib.training import train


@hydra.main(config_path="asrlib/configs", config_name="train", version_base=None)
def main(config: DictConfig) -> None:
    progress = train(config)
    print(
        f"best on dev: WER {progress.best_wer:.2f} %, CER {progress.best_cer:.2f} %, "
        f"epoch {progress.best_epoch}; checkpoints, logs and figures in {config.run_dir}"
    )


if __name__ == "__main__":
    main()
