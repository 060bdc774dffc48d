"""A forked process mines and evaluates after its parent did: OpenMP's threads are not copied."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# With more than one thread of torch's, or there would be none to lose. The alarm ends a child that
# waits for ever; it says so by its exit status.
_PROGRAM = """
import os, signal, sys
import numpy as np, torch, fastneg
from fastneg import threads
torch.set_num_threads(3)
rng = np.random.default_rng(0)
queries, items = (rng.standard_normal((n, 32)).astype(np.float32) for n in (300, 3000))
train = fastneg.Interactions.from_codes(np.arange(300), np.arange(300), num_items=3000)
test = fastneg.Interactions.from_codes(np.arange(300), np.arange(300) + 300, num_items=3000)

def work(what):
    if what == "evaluate":
        return str(fastneg.evaluate(queries, items, train=train, test=test))
    if what == "diagnose":
        found = fastneg.diagnose_window(
            queries, items, positives=train, held_out=test, window=(1, 50)
        )
        return str(found)
    mined = fastneg.mine_hard_negatives(
        queries, items, window=(1, 50), num_negatives=5, progress=False, search=what
    )
    return mined.items.tolist()

large = torch.randn(2000, 2000)
(large @ large).sum()  # torch's threads have run
for what in sys.argv[1:]:
    wanted = work(what)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = work(what) == wanted and torch.get_num_threads() == 3
        os._exit(0 if same and threads.is_forked() else 3)
    print(what, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
assert torch.get_num_threads() == 3 and not threads.is_forked()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_does_what_its_parent_did() -> None:
    asked = ["exact", "ivf", "faiss:IVF16,Flat", "diagnose", "evaluate"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *asked],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "3"},
    )
    assert done.stdout.split() == [word for what in asked for word in (what, "0")], done.stderr
