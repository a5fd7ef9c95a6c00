"""Runs notebooks one after the other, within a time limit, and goes on where the last run stopped.

python notebooks/run_stages.py PROFILE OUT [--previous DIR] [KEY=VALUE]

PROFILE is a name in notebooks/profiles or a YAML file; KEY=VALUE changes a value in it
(``hours=7.5``, ``stages.1.parameters.experiment=NAME``). OUT gets a folder for each stage: what it trained,
the notebook as it was executed, and ``finished.json`` once it is. Ends with status 0 when all stages are
finished, 75 when time was up before (the same command goes on), 1 when a stage failed.

| key of a profile | what |
|---|---|
| ``hours`` | for all stages of this run together; null: no limit |
| ``links`` | {path in the checkout: folder}: links that are made first, so that commands name no machine |
| ``parameters`` | of every notebook that has them |
| ``stages`` | list of ``notebook``, ``parameters`` of its own, and ``name``, if not the notebook's |

``${out}`` in a profile is OUT, so a stage can name what another one made. Each stage gets the parameters
``out`` (its folder, unless the profile says otherwise) and ``hours`` (what is left, or less if the profile
says so), where its notebook has them.
"""

import argparse
import ast
import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import nbformat
import papermill
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # asrlib need not be installed

from asrlib.files import folder_written_atomically, write_atomically  # noqa: E402
from asrlib.result import now  # noqa: E402
from asrlib.training.stopping import STATUS  # noqa: E402

NOTEBOOKS = ROOT / "notebooks"
KEYS = {"hours", "links", "parameters", "stages"}
CHANGING = {"hours"}  # parameters that say how, not what: they may differ from run to run


# of parameters that it cannot see; load_profile has looked for them
logging.getLogger("papermill").setLevel(logging.ERROR)


class ProfileError(ValueError):
    """Something in the profile or on the command line, with its remedy."""


def load_profile(name: str, out: Path, changes: list[str]) -> DictConfig:
    """The profile with ``changes`` (KEY=VALUE) and with ``out``, resolved.

    Raises:
        ProfileError: no such profile, or an unknown key, notebook or parameter in it.
    """
    path = (
        Path(name)
        if Path(name).suffix in (".yaml", ".yml")
        else NOTEBOOKS / "profiles" / f"{name}.yaml"
    )
    if not path.is_file():
        known = sorted(p.stem for p in (NOTEBOOKS / "profiles").glob("*.yaml"))
        raise ProfileError(f"no profile {path}; there are {', '.join(known)}")
    profile = OmegaConf.load(path)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ProfileError(f"{change!r} is not KEY=VALUE")
        try:
            OmegaConf.update(profile, key, _value(value))
        except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
            raise ProfileError(f"{change}: {error}") from error
    if unknown := set(profile) - KEYS:
        raise ProfileError(f"{path}: unknown keys {sorted(unknown)}; there are {sorted(KEYS)}")
    if not isinstance(profile.get("stages"), ListConfig):
        raise ProfileError(f"{path}: stages is no list")
    if not isinstance(profile.get("hours"), int | float | None):
        raise ProfileError(f"{path}: hours={profile.hours} is no number")
    profile.out = str(out)
    try:
        OmegaConf.resolve(profile)
    except OmegaConfBaseException as error:
        raise ProfileError(f"{path}: {error}") from error
    for stage in profile.stages:
        if unknown := set(stage) - {"notebook", "name", "parameters"}:
            raise ProfileError(f"{path}: a stage has the unknown keys {sorted(unknown)}")
        known = parameters_of(notebook_path(stage))
        if unknown := set(stage.get("parameters", {})) - known:
            raise ProfileError(
                f"{path}: {stage.notebook} has no parameters {sorted(unknown)}; it has {sorted(known)}"
            )
    names = [name_of(stage) for stage in profile.stages]
    if len(set(names)) < len(names):
        raise ProfileError(f"{path}: two stages have one name: {names}")
    return profile


def _value(text: str) -> object:
    return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]


def notebook_path(stage: DictConfig) -> Path:
    path = NOTEBOOKS / f"{stage.notebook}.ipynb"
    if not path.is_file():
        known = sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb"))
        raise ProfileError(f"no notebook {path}; there are {', '.join(known)}")
    return path


def name_of(stage: DictConfig) -> str:
    return stage.get("name", stage.notebook)


def parameters_of(notebook: Path) -> set[str]:
    """The names that the cell with the tag "parameters" sets.

    Read as Python: papermill's own inspection loses a line whose comment has a "=".
    """
    parsed = ast.parse(parameters_cell(notebook))
    assigned = [node for node in parsed.body if isinstance(node, ast.Assign)]
    return {name.id for node in assigned for name in ast.walk(node) if _is_set(name)}


def parameters_cell(notebook: Path) -> str:
    """The source of the cell with the tag "parameters"."""
    cells = nbformat.read(notebook, as_version=4).cells
    return next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))


def _is_set(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def take_over(previous: Path, out: Path, stages: set[str]) -> None:
    """Copies the stages of an earlier session that ``out`` does not have; ``previous`` may be read-only.

    Raises:
        ProfileError: there is no such folder, or none of ``stages`` in it.
    """
    if not previous.is_dir():
        raise ProfileError(f"--previous {previous}: no such folder")
    folders = sorted(path for path in previous.iterdir() if path.is_dir())
    if not stages & {path.name for path in folders}:
        raise ProfileError(
            f"--previous {previous}: none of the stages {', '.join(sorted(stages))} is in it: name the "
            "folder that was OUT"
        )
    for folder in folders:
        there = (out / folder.name).exists()
        print(f"{folder.name}: {'in OUT already, not ' if there else ''}taken over", flush=True)
        if not there:
            with folder_written_atomically(out / folder.name) as copy:
                # a read-only input's files are read-only, too; what is trained on must not be. W&B leaves
                # links that lead nowhere on another machine.
                shutil.copytree(
                    folder,
                    copy,
                    dirs_exist_ok=True,
                    copy_function=shutil.copyfile,
                    ignore_dangling_symlinks=True,
                )
                for path in (copy, *copy.rglob("*")):
                    if path.is_dir():
                        path.chmod(0o755)


def make_links(links: DictConfig) -> None:
    """Makes links in the checkout to folders elsewhere.

    Raises:
        ProfileError: there is no such folder, or something else where the link should be.
    """
    for name, folder in links.items():
        link, target = ROOT / name, Path(folder)
        if not target.is_dir():
            raise ProfileError(
                f"links.{name}={folder}: no such folder; add it as input, or name another"
            )
        if link.is_symlink():
            link.unlink()
        if link.exists():
            raise ProfileError(f"{link} is there already, and is no link: rename it")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target.absolute())


def run_stage(stage: DictConfig, common: DictConfig, out: Path, hours: float | None) -> bool:
    """Runs a stage unless it is finished; returns whether it is now.

    Raises:
        ProfileError: it was finished with other parameters.
        papermill.PapermillExecutionError: a cell of it failed.
    """
    notebook, folder = notebook_path(stage), out / name_of(stage)
    known = parameters_of(notebook)
    given = OmegaConf.to_container(
        OmegaConf.merge({"out": str(folder)}, common, stage.get("parameters", {}))
    )
    limits = [limit for limit in (given.get("hours"), hours) if limit is not None]
    given["hours"] = min(limits, default=None)
    given = {name: value for name, value in given.items() if name in known}
    what = {name: value for name, value in given.items() if name not in CHANGING}
    # the next session may have another OUT
    place = json.dumps(str(out), ensure_ascii=False)[1:-1]
    what = json.loads(json.dumps(what, ensure_ascii=False).replace(place, "${out}"))
    done = folder / "finished.json"
    if done.exists():
        if (before := json.loads(done.read_text())["parameters"]) != what:
            changed = sorted(
                name for name in before.keys() | what if before.get(name) != what.get(name)
            )
            raise ProfileError(
                f"{folder} was finished with other parameters ({', '.join(changed)}): "
                "choose another OUT, or remove it to run it again"
            )
        print(f"{name_of(stage)}: finished before", flush=True)
        return True
    print(f"{name_of(stage)}: {notebook.name}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    started, attempt = time.monotonic(), 1 + len(list(folder.glob("executed-*.ipynb")))
    try:
        papermill.execute_notebook(
            str(notebook),
            str(folder / f"executed-{attempt}.ipynb"),
            given,
            kernel_name="python3",
            cwd=str(ROOT),
            progress_bar=False,
            stdout_file=sys.stdout,
        )
    except papermill.PapermillExecutionError as error:
        if error.ename == "Stopped":
            return False
        raise
    seconds = round(time.monotonic() - started)
    record = {"parameters": what, "seconds": seconds, "attempts": attempt, "date": now()}
    write_atomically(done, json.dumps(record, indent=1) + "\n")
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profile", help="a name in notebooks/profiles, or a YAML file")
    parser.add_argument("out", type=Path, help="folder of the stages")
    parser.add_argument("--previous", type=Path, help="OUT of an earlier session, to go on from")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="values of the profile")
    options = parser.parse_intermixed_args(arguments)
    started, out = time.monotonic(), options.out.absolute()
    # as Ctrl-C, so that the notebook's kernel ends with this process, and its training with a checkpoint
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        profile = load_profile(options.profile, out, options.changes)
        if options.previous is not None:
            take_over(options.previous, out, {name_of(stage) for stage in profile.stages})
        make_links(profile.get("links") or OmegaConf.create())
        for stage in profile.stages:
            left = None
            if profile.get("hours") is not None:
                left = profile.hours - (time.monotonic() - started) / 3600
            if not run_stage(stage, profile.get("parameters") or OmegaConf.create(), out, left):
                print(f"{name_of(stage)} is not finished: the same command goes on", flush=True)
                return STATUS
    except ProfileError as error:
        print(f"run_stages: {error}", file=sys.stderr)
        return 1
    except papermill.PapermillExecutionError as error:
        print(f"{name_of(stage)} failed: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return STATUS
    print(f"all stages are finished: {os.path.relpath(out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
