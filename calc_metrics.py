"""WER and CER of a folder of predictions.

python calc_metrics.py --gt_dir DIR/transcriptions --pred_dir OUT [--json FILE]

Edits are summed over the corpus; the mean over utterances is printed under its own name. Ends with
status 1 where a prediction is missing (its words count as deleted).
"""

import argparse
import json
import math
import sys

from asrlib.files import write_atomically
from asrlib.metrics import read_texts, score_texts
from asrlib.result import scores


def _is_nan(value: object) -> bool:
    """Whether it is the rate of references without words, which JSON cannot say."""
    return isinstance(value, float) and math.isnan(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gt_dir", required=True, help="folder with the references, ID.txt")
    parser.add_argument("--pred_dir", required=True, help="folder with the predictions, ID.txt")
    parser.add_argument("--json", help="file to write the numbers to")
    parser.add_argument(
        "--speaker_pattern", help="regular expression whose first group is the speaker in an id"
    )
    arguments = parser.parse_args()
    try:
        references, predictions = read_texts(arguments.gt_dir), read_texts(arguments.pred_dir)
        score = score_texts(references, predictions, arguments.speaker_pattern)
    except (OSError, ValueError) as error:
        sys.exit(f"calc_metrics: {error}")
    numbers = scores(score.errors) | {
        "mean_utterance_wer": score.mean_utterance_wer,
        "mean_utterance_cer": score.mean_utterance_cer,
        "missing": score.missing,
        "unexpected": score.unexpected,
    }
    print(
        f"WER {numbers['wer']:.2f} %  (S {numbers['substitutions']}, D {numbers['deletions']}, "
        f"I {numbers['insertions']} of {numbers['words']} words in {numbers['utterances']} utterances)"
    )
    if numbers["wer_interval"]:
        print("95 % interval of the WER: {:.2f}–{:.2f} %".format(*numbers["wer_interval"]))
    print(f"CER {numbers['cer']:.2f} %")
    print(
        f"mean over utterances: WER {score.mean_utterance_wer:.2f} %, "
        f"CER {score.mean_utterance_cer:.2f} %"
    )
    if score.unexpected:
        print("predicted without a reference, not scored:", *score.unexpected, file=sys.stderr)
    if arguments.json:
        known = {key: None if _is_nan(value) else value for key, value in numbers.items()}
        write_atomically(arguments.json, json.dumps(known, indent=2, allow_nan=False) + "\n")
    if score.missing:
        sys.exit(f"no prediction, all words counted as deleted: {' '.join(score.missing)}")


if __name__ == "__main__":
    main()
