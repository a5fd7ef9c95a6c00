"""Inference on a dataset: texts under the utterances' own ids, and scores where they are known.

On a CPU several processes recognise a batch each, with one thread: threads that share a batch wait for each
other after every layer, all but one while it is decoded, and the more of them there are, the longer.
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from asrlib.build import build, device_name
from asrlib.checkpoint import find_checkpoint
from asrlib.cores import usable_cores
from asrlib.data import Utterance
from asrlib.data.collate import collate
from asrlib.data.loader import BatchLoader, make_loader
from asrlib.decoding import Hypothesis
from asrlib.decoding.longform import WINDOW_SECONDS
from asrlib.decoding.options import require
from asrlib.decoding.tuned import chosen_decoder
from asrlib.decoding.worker_pool import WorkerPool, can_fork
from asrlib.files import write_atomically, write_jsonl
from asrlib.randomness import generator
from asrlib.recognizer import Recognizer
from asrlib.result import Result, add_result, command_line, result_of
from asrlib.training.evaluation import Evaluation, evaluate, recognize


class Inferencer:
    """Decodes the dataset of ``config`` with a trained model; see ``asrlib/configs/inference.yaml``.

    Raises:
        ValueError: ``inferencer.processes`` is below 1, or more of them would share a GPU.
    """

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
        self.processes = self._processes(self.options.processes)
        self.dataset = build(config.datasets[self.options.part], max_item_seconds=WINDOW_SECONDS)

    def run(self) -> Evaluation:
        """Decodes, writes ``save_path/ID.txt`` of each utterance at once, and the result where asked for.

        What could not be read, here or when the folder was indexed, is in ``skipped``. Texts that an earlier
        run left for these recordings go first, so that none can be taken for one of this run.
        """
        options, recognizer = self.options, self.recognizer
        if options.save_path is not None:
            ids = [utterance.id for utterance in self.dataset.utterances]
            ids += [Path(key).stem for key in self.dataset.skipped if Path(key).is_absolute()]
            for id in ids:
                self._path(id).unlink(missing_ok=True)
        loader = make_loader(self.dataset, options.batch_seconds, num_workers=options.num_workers)
        if min(self.processes, len(loader)) > 1:
            evaluation = self._shared_out(loader)
        else:
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

    def _processes(self, asked: int | None) -> int:
        alone = self.recognizer.model.device.type != "cpu" or not can_fork()
        require(
            asked is None or asked == 1 or (asked > 1 and not alone),
            f"inferencer.processes={asked}: 1 or more on a CPU, where processes can be forked; else 1",
        )
        return asked or (1 if alone else usable_cores())

    def _shared_out(self, loader: BatchLoader) -> Evaluation:
        """Each batch by whichever process is free, the longest first.

        Before, the shortest utterance is recognised here: what that loads and compiles they inherit.
        """
        *batches, last = loader.batch_sampler
        shortest = self._recognize(last[-1:])
        batches += [last[:-1]] if last[:-1] else []
        pool = WorkerPool(self._recognize, min(self.processes, len(batches)))
        shares = tqdm(
            pool.map(batches), "inference", len(batches), leave=False, unit="batch", disable=None
        )
        evaluation = Evaluation()
        for share in shares:
            evaluation += share
        pool.close()
        evaluation += shortest
        return evaluation

    def _recognize(self, batch: Sequence[tuple[int, int]]) -> Evaluation:
        """What is found in these items of the dataset; in a process of its own or here."""
        recognizer, items = self.recognizer, [self.dataset[key] for key in batch]
        model, decoder = recognizer.model, recognizer.decoder
        return recognize(collate(items), model, decoder, recognizer.text_encoder, keep=self._save)

    def _save(self, utterance: Utterance, hypothesis: Hypothesis) -> None:
        if self.options.save_path is not None:
            write_atomically(self._path(utterance.id), hypothesis.text + "\n")

    def _path(self, id: str) -> Path:
        return Path(self.options.save_path) / f"{id}.txt"

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
