"""A fork gives back the copies of pages that are as the host had them, and nothing of what it wrote is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's memory")

# A process of its own: its heap is not to be the test runner's.
_BEGIN = """
import gc, hashlib, os, sys, threading
from pathlib import Path
from stream_app.forkserver import host_image

def own_kb():
    words = Path("/proc/self/smaps_rollup").read_text().split()
    return int(words[words.index("Private_Dirty:") + 1])

def digest(names):
    return hashlib.sha256("".join(names).encode()).hexdigest()

things = [f"thing {number}" for number in range(200_000)]
dead = things[::3]
was = digest(things)
host_image.prepare()
gc.collect()
image = host_image.take()
gc.freeze()
assert image is not None
assert digest(things) == was

def in_fork(work):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def run(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEGIN + text], capture_output=True, cwd=Path(__file__).parents[2], text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_was_only_looked_at_is_given_back() -> None:
    run("""
def look():
    looked = [*things]  # a reference to each: every page is copied
    copied = own_kb()
    del looked
    assert image.restore() * 4 > 8_000
    assert own_kb() < copied - 8_000
    assert digest(things) == was
in_fork(look)
in_fork(look)
""")


def test_what_was_written_stays() -> None:
    run("""
def write():
    looked = [*things]
    kept = looked[::7]
    more = [f"another {number}" for number in range(100_000)]
    told, also = digest(more), digest(kept)
    del looked, things[1::2]
    for _ in range(3):
        assert image.restore() >= 0
        assert digest(more) == told and digest(kept) == also
        gc.collect()
    counts = {sys.getrefcount(thing) for thing in kept[:7]}
    fresh = "".join(["thing ", "0"])
    assert fresh == things[0] == kept[0]
    assert all(0 < count < 10 for count in counts)
in_fork(write)
assert digest(things) == was
""")


def test_memory_grows_and_shrinks_behind_it() -> None:
    run("""
def grow():
    for _ in range(3):
        blocks = [bytearray(size) for size in (100, 5_000, 200_000, 3_000_000) for _ in range(50)]
        for block in blocks:
            block += bytes(len(block))
        assert all(block.count(0) == len(block) for block in blocks)
        del blocks
        image.restore()
grow()
in_fork(grow)
assert digest(things) == was
""")


def test_nothing_is_given_back_beside_a_thread() -> None:
    run("""
def look():
    looked = [*things]
    del looked
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert image.restore() == 0
    done.set()
    thread.join()
    while len(os.listdir("/proc/self/task")) > 1:
        pass
    assert image.restore() > 0
in_fork(look)
""")


def test_a_system_without_files_in_memory_has_no_image() -> None:
    run("""
def refuse(*_):
    raise OSError("no")
os.memfd_create = refuse
assert host_image.take() is None
assert digest(things) == was
""")
