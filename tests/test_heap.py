"""Memory of freed tensors in the process of a command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from mmfusion.heap import keep_freed_memory

#: Page faults of a second large buffer, of the size of the first, which is free again.
CODE = """
import resource
from mmfusion.heap import keep_freed_memory
print(keep_freed_memory())
bytearray(b"x") * 2**26
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(b"x") * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def second_buffer(**environment: str) -> tuple[str, int]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=kept | environment
    )
    is_set, faults = done.stdout.split()
    return is_set, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_freed_buffer_is_used_again_without_page_faults():
    is_set, faults = second_buffer()
    assert is_set == "True" and faults < 100
    is_set, faults = second_buffer(GLIBC_TUNABLES="glibc.malloc.tcache_count=7")  # the user has set the heap
    assert is_set == "False" and faults > 10_000


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_are_left_alone(system: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", system)
    assert keep_freed_memory() is False
