"""Makes language models usable, estimates them, measures them.

python -m asrlib.language_model prepare SOURCE [--out FILE]
python -m asrlib.language_model estimate --order 3 --out FILE (TEXT... | --dataset NAME [--root DIR])
python -m asrlib.language_model perplexity FILE (TEXT... | --dataset NAME [--root DIR])

TEXT has a sentence a line, plain, .gz or .xz. Of a dataset of asrlib/configs/datasets, estimate
reads the train part and perplexity the dev part; no command reads test. A FILE is an ARPA, and
compressed if its name ends in .gz.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asrlib.language_model.estimate import estimate
from asrlib.language_model.perplexity import perplexity
from asrlib.language_model.rewrite import prepare, prepared
from asrlib.language_model.texts import dev_sentences, file_sentences, training_sentences


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "prepare":
            print(prepare(options.source, options.out) if options.out else prepared(options.source))
            return
        if bool(options.text) == bool(options.dataset):
            raise ValueError("give either texts or --dataset")
        if options.command == "estimate":
            dataset = options.dataset and training_sentences(options.dataset, options.root)
            sentences = dataset or file_sentences(options.text)
            estimate(sentences, options.order, options.out, options.prune)
            print(f"{options.out}: {options.out.stat().st_size:,} bytes")
        else:
            dataset = options.dataset and dev_sentences(options.dataset, options.root)
            print(perplexity(options.lm, dataset or file_sentences(options.text)))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"language_model: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asrlib.language_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="spell the words of an ARPA as we do")
    preparing.add_argument("source", type=Path, help="ARPA, plain or compressed by gzip")
    preparing.add_argument("--out", type=Path, help="default: in the cache, and only if needed")
    estimating = commands.add_parser("estimate", help="make a language model from sentences")
    estimating.add_argument("--order", type=int, required=True, help="words of an n-gram: 2 to 6")
    estimating.add_argument("--out", type=Path, required=True)
    estimating.add_argument(
        "--prune",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[],
        help="0,0,1 leaves out trigrams (and longer) that were seen once",
    )
    measuring = commands.add_parser("perplexity", help="measure a language model on sentences")
    measuring.add_argument("lm", type=Path, help="ARPA or binary of KenLM")
    for command in (estimating, measuring):
        command.add_argument("text", type=Path, nargs="*")
        command.add_argument("--dataset", help="demo, an4, librispeech …")
        command.add_argument("--root", help="folder of the dataset")
    return parser


if __name__ == "__main__":
    main()
