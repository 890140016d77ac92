"""Freed memory goes back to the system."""

import resource
from pathlib import Path

import pytest

from stopgrad.training import memory

BLOCK, COUNT = 2**16, 1024


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not hasattr(memory._LIBRARY, "malloc_trim"), reason="this C library is not glibc")
def test_what_was_freed_below_something_in_use_is_given_back():
    blocks = [bytearray(b"x" * BLOCK) for _ in range(COUNT)]
    last = blocks.pop()  # what lies below it stays with the process
    blocks.clear()
    before = resident()
    memory.give_back()
    assert before - resident() > 0.9 * BLOCK * COUNT
    assert last == b"x" * BLOCK


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "_LIBRARY", None)
    memory.give_back()
