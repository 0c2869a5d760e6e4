"""Run Python code and commands one after the other, each in a fork of a process with the libraries imported.

A line of standard input is a request in JSON: ``code``, or the ``arguments`` of a command; ``environment``; the files
``stdout`` and ``stderr``. The line that answers it is the exit status.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import mmfusion
import mmfusion.training
from mmfusion.cli.main import main


def run(request: dict[str, Any]) -> int:
    """Exit status of a request, like that of ``python -c`` or ``python -m mmfusion``."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(request["environment"])
    try:
        if "code" not in request:
            return main(request["arguments"])
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    """Answer requests until standard input ends."""
    mmfusion.list_models()  # import the libraries that models need
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = run(json.loads(line))
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
