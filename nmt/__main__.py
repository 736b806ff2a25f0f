"""nmt COMMAND …: every command under one name; nmt train … is python -m nmt.train …."""

import difflib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from nmt import __version__
from nmt.cli.commands import SUMMARIES
from nmt.runtime.errors import report_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command in this process, or list the commands.

    Raises:
        SystemExit: as the command does; 1 where there is no such command.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in SUMMARIES and name != "completion":
        sys.argv[1:] = rest
        if not sys.flags.safe_path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # as python -m does
        runpy.run_module(f"nmt.{name}", run_name="__main__", alter_sys=True)
        return
    with report_errors():
        if name == "completion":
            if rest not in (["bash"], ["zsh"]):
                raise ValueError(
                    "completion: write nmt completion bash or nmt completion zsh, and source what it prints"
                )
            print((Path(__file__).parent / "cli/completion.sh").read_text(encoding="utf-8"), end="")
        elif name in ("-h", "--help", "help"):
            print("usage: nmt COMMAND [name=value …], the same as python -m nmt.COMMAND [name=value …]\n")
            for command, summary in SUMMARIES.items():
                print(f"  {command:{max(map(len, SUMMARIES))}}  {summary}")
            print("\nnmt COMMAND --help lists the options of a command, nmt COMMAND --help NAME explains one")
        elif name == "--version":
            print(f"nmt {__version__}")
        else:
            nearest = next(iter(difflib.get_close_matches(name, SUMMARIES, 1, 0.7)), None)
            hint = f"did you mean {nearest}?" if nearest else f"the commands are {', '.join(SUMMARIES)}"
            raise ValueError(f"{name}: no command of nmt; {hint}")


if __name__ == "__main__":
    main()
