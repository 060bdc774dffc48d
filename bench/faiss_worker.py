"""FAISS in a process of its own, since OpenBLAS chooses its kernels once, when it is loaded.

The process (``python -m bench.faiss_worker FOLDER THREADS``) maps items.npy and queries.npy of a
folder, reads a JSON object a line and answers each with one: {"seconds": ...} and more. It stays
while rounds go by, so that sides of several processes can be timed in turn.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.rivals import MissingError

CORE_TYPES = (None, "Haswell", "SkylakeX")  # None: the variable is not set
DEPTH = 500


class Worker:
    """The calling side of one process."""

    def __init__(self, folder: Path, core_type: str | None, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        environment.pop("OPENBLAS_CORETYPE", None)
        if core_type is not None:
            environment["OPENBLAS_CORETYPE"] = core_type
        self.name = core_type or "unset"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.faiss_worker", str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self.core = str(self.ask("core")["core"])

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Have it done, and wait.

        Raises:
            MissingError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise MissingError(f"faiss, {self.name}: ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Searches:
    """The side that searches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items = np.load(folder / "items.npy", mmap_mode="r")
        self.queries = np.load(folder / "queries.npy", mmap_mode="r")
        self.index: Any = None
        self.found: Any = None

    def core(self) -> dict[str, Any]:
        from fastneg.doctor import openblas_cores

        cores = openblas_cores()
        return {"core": cores.get("faiss", "unknown") if isinstance(cores, dict) else cores}

    def load_flat(self) -> dict[str, Any]:
        import faiss

        self.index = faiss.IndexFlatIP(self.items.shape[1])
        self.index.add(np.ascontiguousarray(self.items))
        return {}

    def load_ivf(self, nprobe: int) -> dict[str, Any]:
        """Our centroids; our lists. ``same``: how many items the quantizer puts there too."""
        import faiss

        centroids = np.ascontiguousarray(np.load(self.folder / "centroids.npy"))
        lists = np.load(self.folder / "list_of_item.npy").astype(np.int64)
        items = np.ascontiguousarray(self.items)
        self.quantizer = faiss.IndexFlatIP(items.shape[1])
        self.quantizer.add(centroids)
        self.index = faiss.IndexIVFFlat(
            self.quantizer, items.shape[1], len(centroids), faiss.METRIC_INNER_PRODUCT
        )
        self.index.is_trained = True
        ids = np.arange(len(items), dtype=np.int64)
        self.index.add_core(len(items), *(faiss.swig_ptr(a) for a in (items, ids, lists)))
        self.index.nprobe = nprobe
        assert self.index.ntotal == len(items)
        return {}

    def train_ivf(self, lists: int, nprobe: int) -> dict[str, Any]:
        """What a job does before its first query."""
        import faiss

        self.quantizer = faiss.IndexFlatIP(self.items.shape[1])
        self.index = faiss.IndexIVFFlat(
            self.quantizer, self.items.shape[1], lists, faiss.METRIC_INNER_PRODUCT
        )
        self.index.cp.min_points_per_centroid = 1
        items = np.ascontiguousarray(self.items)
        self.index.train(items)
        self.index.add(items)
        self.index.nprobe = nprobe
        return {}

    def search(self, rows: int) -> dict[str, Any]:
        self.found = self.index.search(np.ascontiguousarray(self.queries[:rows]), DEPTH)[1]
        return {}

    def big_batch(self, rows: int, method: str, threaded: int) -> dict[str, Any]:
        from faiss.contrib.big_batch_search import big_batch_search

        queries = np.ascontiguousarray(self.queries[:rows])
        self.found = big_batch_search(self.index, queries, DEPTH, method=method, threaded=threaded)[
            1
        ]
        return {}

    def keep(self, rows: int) -> dict[str, Any]:
        """Ranks 101 .. 500 of the first queries of what was found last, into found.npy."""
        np.save(self.folder / "found.npy", self.found[:rows, 100:].astype(np.int32))
        return {}

    def mine(self, rows: int) -> dict[str, Any]:
        """The rest of a job in NumPy: 10 of the ranks 101 .. 500 of what is no positive."""
        indptr = np.load(self.folder / "positives_indptr.npy", mmap_mode="r")
        positives = np.load(self.folder / "positives_items.npy", mmap_mode="r")
        rng, step, mined = np.random.default_rng(0), 16_384, []
        for first in range(0, rows, step):
            part = slice(first, min(first + step, rows))
            queries = np.ascontiguousarray(self.queries[part])
            scores, found = self.index.search(queries, DEPTH)
            borders = np.asarray(indptr[part.start : part.stop + 1])
            owners = np.repeat(np.arange(len(queries)), np.diff(borders))
            keys = owners * len(self.items) + positives[borders[0] : borders[-1]]  # ascending
            asked = np.arange(len(queries))[:, None] * len(self.items) + found
            places = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
            allowed = (keys[places] != asked) & (found >= 0)
            ranks = np.cumsum(allowed, axis=1)
            weights = rng.random(found.shape, dtype=np.float32)
            weights[~allowed | (ranks <= 100)] = 2.0
            drawn = np.argpartition(weights, 9, axis=1)[:, :10]
            mined.append(
                [np.take_along_axis(values, drawn, axis=1) for values in (found, scores, ranks)]
            )
        for number, name in enumerate(("items", "scores", "ranks")):
            np.save(self.folder / f"mined_{name}.npy", np.concatenate([m[number] for m in mined]))
        return {}


def main() -> None:
    folder, threads = Path(sys.argv[1]), int(sys.argv[2])
    searches, answers = Searches(folder), sys.stdout
    import faiss

    faiss.omp_set_num_threads(threads)
    for line in sys.stdin:
        task = json.loads(line)
        what = task.pop("do")
        with contextlib.redirect_stdout(io.StringIO()):  # what libraries print is no answer
            started = time.perf_counter()
            answer = getattr(searches, what)(**task)
            answer["seconds"] = time.perf_counter() - started
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
