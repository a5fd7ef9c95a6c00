"""Inference on a dataset: texts under the utterances' own ids, and scores where they are known."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from asrlib.build import build, device_name
from asrlib.checkpoint import find_checkpoint
from asrlib.data import Utterance
from asrlib.data.loader import make_loader
from asrlib.decoding import Hypothesis
from asrlib.decoding.longform import WINDOW_SECONDS
from asrlib.decoding.tuned import chosen_decoder
from asrlib.files import write_atomically, write_jsonl
from asrlib.randomness import generator
from asrlib.recognizer import Recognizer
from asrlib.result import Result, add_result, command_line, result_of
from asrlib.training.evaluation import Evaluation, evaluate


class Inferencer:
    """Decodes the dataset of ``config`` with a trained model; see ``asrlib/configs/inference.yaml``."""

    def __init__(self, config: DictConfig):
        OmegaConf.resolve(config)
        self.config, self.options = config, config.inferencer
        self.checkpoint = find_checkpoint(self.options.from_pretrained)
        self.decoder = chosen_decoder(config.decoder, self.checkpoint)
        self.recognizer = Recognizer.from_pretrained(
            self.checkpoint,
            self.options.device,
            self.decoder,
            self.options.raw,
            self.options.precision,
        )
        self.dataset = build(config.datasets[self.options.part], max_item_seconds=WINDOW_SECONDS)

    def run(self) -> Evaluation:
        """Decodes, writes ``save_path/ID.txt`` of each utterance at once, and the result where asked for.

        What could not be read, here or when the folder was indexed, is in ``skipped``.
        """
        options, recognizer = self.options, self.recognizer
        loader = make_loader(self.dataset, options.batch_seconds, num_workers=options.num_workers)
        evaluation = evaluate(
            loader,
            recognizer.model,
            recognizer.decoder,
            recognizer.text_encoder,
            description="inference",
            keep=self._save,
        )
        self._show(evaluation)
        if options.table_path is not None:
            write_jsonl(Path(options.table_path), evaluation.rows())
        if options.result_path is not None:
            add_result(options.result_path, self.result(evaluation))
        return evaluation

    def _save(self, utterance: Utterance, hypothesis: Hypothesis) -> None:
        if self.options.save_path is not None:
            path = Path(self.options.save_path) / f"{utterance.id}.txt"
            write_atomically(path, hypothesis.text + "\n")

    def left_out(self, evaluation: Evaluation) -> list[str]:
        """Why each file that has no text has none."""
        return [*self.dataset.skipped.values(), *(item.reason for item in evaluation.skipped)]

    def _show(self, evaluation: Evaluation) -> None:
        """Prints ``show`` random utterances."""
        order = generator("show").permutation(len(evaluation.hypotheses))[: self.options.show]
        ids = list(evaluation.hypotheses)
        references = {u.id: u.reference for u in evaluation.errors.utterances}
        for id in (ids[i] for i in order):
            if id in references:
                print(f"{id}\n  target   {references[id]}")
            else:
                print(id)
            print(f"  predict  {evaluation.hypotheses[id].text}")

    def result(self, evaluation: Evaluation) -> Result:
        """The row that says how well this went, and what it cost."""
        model = self.recognizer.model
        return result_of(
            self.checkpoint,
            evaluation.errors,
            self.options.result_name,
            command=command_line(),
            test_data=f"{self.config.datasets.name} {self.options.part}",
            decoder=self.decoder.name,
            parameters=model.parameter_count(),
            device=device_name(model.device),
        )
