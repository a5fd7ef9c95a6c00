"""Fetches checkpoints, language models and corpora: python download.py [NAME...]; --list has names.

Stopped or failed, it goes on where it was when called again. Ends with status 1 where something could
not be had, and 130 on Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from asrlib.download import Downloader, DownloadError, Manifest, load_manifest


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch")
    parser.add_argument("--list", action="store_true", help="what there is to fetch")
    parser.add_argument("--dest", type=Path, default=Path(), help="put it below here, not below .")
    parser.add_argument("--from", type=Path, dest="mirror", metavar="DIR", help="look here first")
    parser.add_argument("--manifest", type=Path, help="another resources.yaml")
    return parser.parse_args(arguments)


def show(manifest: Manifest) -> None:
    for name, resource in manifest.resources.items():
        size = f"{resource.size / 1e6:,.0f} MB" if resource.size else ""
        print(f"{name:28} {size:>10}  {resource.destination}")
    print("fetched when none is named:", ", ".join(manifest.default) or "nothing yet")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    manifest = load_manifest(options.manifest) if options.manifest else load_manifest()
    if options.list:
        show(manifest)
        return 0
    try:
        chosen = manifest.choose(options.names)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 1
    if not chosen:
        print("nothing is shipped yet; name what you want: --list has names", file=sys.stderr)
        return 1
    if options.mirror and not options.mirror.is_dir():
        print(f"--from {options.mirror}: no such folder", file=sys.stderr)
        return 1
    downloader, status = Downloader(options.dest, options.mirror), 0
    for resource in chosen:
        try:
            downloader.get(resource)
        except DownloadError as error:
            print(error, file=sys.stderr)
            status = 1
        except KeyboardInterrupt:
            print(f"\nstopped; {resource.name} goes on when asked for again", file=sys.stderr)
            return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
