"""Inference on a dataset: texts under the utterances' own ids, and scores where they are known."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from asrlib.build import build
from asrlib.checkpoint import find_checkpoint, read_state
from asrlib.data.loader import make_loader
from asrlib.decoding.longform import WINDOW_SECONDS
from asrlib.decoding.tuned import chosen_decoder
from asrlib.files import write_atomically, write_jsonl
from asrlib.randomness import generator
from asrlib.recognizer import Recognizer
from asrlib.result import Result, add_result, current_commit, now, scores
from asrlib.training.evaluation import Evaluation, evaluate
from asrlib.training.run import command_line


class Inferencer:
    """Decodes the dataset of ``config`` with a trained model; see ``asrlib/configs/inference.yaml``."""

    def __init__(self, config: DictConfig):
        OmegaConf.resolve(config)
        self.config, self.options = config, config.inferencer
        checkpoint = find_checkpoint(self.options.from_pretrained)
        device = self.options.device
        self.decoder = chosen_decoder(config.decoder, checkpoint)
        self.recognizer = Recognizer.from_pretrained(checkpoint, device, self.decoder)
        self.trained_with = OmegaConf.load(checkpoint / "config.yaml")
        self.state = read_state(checkpoint)
        self.dataset = build(config.datasets[self.options.part], max_item_seconds=WINDOW_SECONDS)

    def run(self) -> Evaluation:
        """Decodes, writes ``save_path/ID.txt`` for every utterance, and the result where asked for.

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
        )
        self._show(evaluation)
        if options.save_path is not None:
            for id, hypothesis in evaluation.hypotheses.items():
                write_atomically(Path(options.save_path) / f"{id}.txt", hypothesis.text + "\n")
        if options.table_path is not None:
            write_jsonl(Path(options.table_path), evaluation.rows())
        if options.result_path is not None:
            add_result(options.result_path, self.result(evaluation))
        return evaluation

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
        state, trained_with = (
            read_state(find_checkpoint(self.options.from_pretrained)),
            self.trained_with,
        )
        return Result(
            system="asrlib",
            name=trained_with.name,
            commit=current_commit(),
            command=f"{state['command']} && {command_line()}",
            train_data=trained_with.datasets.name,
            test_data=f"{self.config.datasets.name} {self.options.part}",
            decoder=self.decoder.name,
            parameters=self.recognizer.model.parameter_count(),
            device=str(self.recognizer.model.device),
            train_hours=round(state["train_seconds"] / 3600, 4),
            audio_hours_seen=round(state["audio_seconds"] / 3600, 4),
            seed=trained_with.seed,
            date=now(),
            **scores(evaluation.errors),
        )
