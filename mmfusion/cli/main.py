"""The command line: ``mmfusion COMMAND [--config FILE.yaml] [--KEY VALUE ...]``."""

import argparse
import os
import sys
from collections.abc import Sequence

from mmfusion._version import __version__
from mmfusion.artifacts.integrity import edits
from mmfusion.cli.commands import COMMANDS
from mmfusion.data.problems import BadRowsError
from mmfusion.heap import keep_freed_memory
from mmfusion.names import clip, did_you_mean

#: Errors that users can cause and correct; any other error is a bug and shows its traceback.
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError, argparse.ArgumentError)

#: maximum length of a message: a damaged file may contain a value of a million characters.
_LONGEST = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; None uses those of the process.

    Returns:
        Exit code: 0, 2 after bad input (one line on stderr; a traceback with ``MMFUSION_DEBUG``), 130 when interrupted,
        141 when the program that reads the output, such as ``head``, ends first.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv and argv[0] in COMMANDS else ""
    try:
        if name:
            from mmfusion.cli.parsing import parse  # jsonargparse is not needed for the overview

            with edits(None):
                config = parse(name, argv[1:])
                from mmfusion.cli.calls import run  # nor this for --help

                keep_freed_memory()
                result = run(name, config)
                if summary := result.summary():
                    print(summary)
                if failure := getattr(result, "failure", ""):  # of a command that reports errors row by row
                    raise ValueError(failure)
        else:
            _overview(argv)
        print(end="", flush=True)
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return 141
        if os.environ.get("MMFUSION_DEBUG"):
            raise
        # only the list of bad rows keeps its lines
        words = str(error) if isinstance(error, BadRowsError) else clip(" ".join(str(error).split()), _LONGEST)
        print(f"{f'mmfusion {name}'.rstrip()}: error: {words or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{f'mmfusion {name}'.rstrip()}: interrupted", file=sys.stderr)
        return 130
    return 0


def _reader_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more; then the rest of the output is discarded."""
    try:
        print(flush=True)  # a flush alone is silent after a failed one
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _overview(argv: list[str]) -> None:
    """``mmfusion``, ``--help`` and ``--version``."""
    if argv and not argv[0].startswith("-"):
        raise ValueError(f"Unknown command {argv[0]!r}; {did_you_mean(argv[0], list(COMMANDS))}")
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="mmfusion",
        usage="mmfusion COMMAND [--config FILE.yaml] [--KEY VALUE ...]",
        description="Multimodal diagnosis from images and patient text.",
        epilog=f"commands:\n{commands}\n\n"
        "'mmfusion COMMAND --help' shows the options of a command. MMFUSION_DEBUG=1 shows tracebacks.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
    )
    parser.add_argument("--version", action="version", version=f"mmfusion {__version__}")
    if unknown := parser.parse_known_args(argv)[1]:
        raise ValueError(f"Unknown option {unknown[0]!r}; see mmfusion --help.")
    parser.print_help()
