"""Decodes a dataset with a trained model; see asrlib/configs/inference.yaml.

Ends with status 1 where a file could not be used, unless ``inferencer.strict=false``; all others have their
text.
"""

import sys

import hydra
from omegaconf import DictConfig

from asrlib.configs import readable
from asrlib.training import Inferencer


@hydra.main(config_path="asrlib/configs", config_name="inference", version_base=None)
def main(config: DictConfig) -> None:
    inferencer = Inferencer(config)
    evaluation = inferencer.run()
    errors, left_out = evaluation.errors, inferencer.left_out(evaluation)
    if errors.words.reference:
        print(
            f"WER {errors.wer:.2f} %  CER {errors.cer:.2f} %  "
            f"(S {errors.words.substitutions}, D {errors.words.deletions}, "
            f"I {errors.words.insertions} of {errors.words.reference} words)"
        )
    if left_out:
        print(f"{len(left_out)} files without a text:", *left_out, sep="\n  ", file=sys.stderr)
        sys.exit(1 if config.inferencer.strict else 0)


if __name__ == "__main__":
    sys.argv[1:] = readable(sys.argv[1:])
    main()
