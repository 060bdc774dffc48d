"""``mine_to_folder``: a mining job that may be killed at any moment and goes on to the same bytes.

Before the first shard, everything that decides a byte is stored: fingerprints of the inputs, the
settings, the versions, the engine. A later call compares, opens the engine instead of training it,
and mines the shards that are missing or damaged. A row's draws depend on the seed, the row and the
engine only, so it does not matter which process mines it.

Fingerprints are SHA-256 over all float32 values (about 1 GB/s on one core: half a second for two
million vectors of width 64), once for each start.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastneg.checks import FloatArray, as_flag, as_integer, as_path, as_progress, fail
from fastneg.errors import FileFormatError
from fastneg.files import array_pieces
from fastneg.lazy import lazy_module
from fastneg.mining import window as rules_of
from fastneg.mining.arguments import MiningSettings, check_settings, make_job
from fastneg.mining.engines import make_engine, open_engine
from fastneg.mining.job import Job, Totals, Windows, expect_rows, make_report, mine_rows
from fastneg.mining.job_folder import (
    FORMAT,
    KIND,
    Entry,
    JobFolder,
    Manifest,
    read_manifest,
    shard_name,
)
from fastneg.mining.job_identity import JobIds, differences, find_ids, identity_of
from fastneg.mining.job_manifest import NOT_IN_MANIFEST
from fastneg.mining.mined_folder import (
    MinedFolder,
    mined_table,
    parquet_bytes,
    shard_arrays,
)
from fastneg.mining.report import ShowProgress, progress_bar
from fastneg.mining.search import Engine
from fastneg.mining.vector_files import open_vectors
from fastneg.threads import without_openmp

pa = lazy_module("pyarrow")

CALL = "mine_to_folder"
_SHARD_QUERIES = 65_536  # engines that visit each list once per block like many queries at once
_ROW_BYTES = 48  # of one negative while a shard is made: arrays, lists, the file


@without_openmp()
def mine_to_folder(
    queries: Any,
    items: Any,
    folder: str | Path,
    *,
    positives: Any = None,
    query_users: Any = None,
    window: tuple[int, int] = (101, 500),
    num_negatives: int = 10,
    metric: str = "ip",
    strategy: str = "uniform",
    temperature: float = 1.0,
    min_score: float | None = None,
    max_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    max_per_item: int | None = None,
    query_groups: Any = None,
    item_groups: Any = None,
    group_rule: str = "same",
    drop_duplicates: bool = False,
    search: str = "auto",
    recall: float = 0.95,
    memory: int = 1 << 30,
    device: str = "auto",
    seed: int = 0,
    progress: ShowProgress = True,
    query_ids: Any = None,
    item_ids: Any = None,
    query_id_column: str | None = None,
    item_id_column: str | None = None,
    query_vector_column: str | None = None,
    item_vector_column: str | None = None,
    shard_queries: int | None = None,
    resume: bool = True,
) -> MinedFolder:
    """``mine_hard_negatives`` into a folder of Parquet shards, resumable to the same bytes.

    ::

        mined = fastneg.mine_to_folder("queries.npy", "items.npy", "mined", positives=seen)
        mined = fastneg.open_mined("mined")  # later, or elsewhere

    The folder has ``part-00000.parquet`` ... (columns in ``open_mined``), ``manifest.json``, what
    the engine trained (``engine-*.npy``), with ``max_per_item`` the first pass's sums
    (``expected-*.npy``), with ``item_ids`` the ids (``items.parquet``), and ``log.jsonl``.
    The negatives are those that ``mine_hard_negatives`` draws with the same arguments.

    Killed at any moment and called again with the same arguments, it ends with the same bytes in
    all files but the log (which holds the times), and mines at most one shard twice in each pass.
    A shard whose checksum is not the manifest's is mined again. Other inputs, settings or versions
    are refused with the list of what differs; ``memory``, ``device`` and ``progress`` may change.

    Args:
        queries: [Q, d] as in ``mine_hard_negatives``, or the path of an .npy (memory-mapped), of a
            Parquet file with a column of lists of numbers, or of a folder with parts of either
            kind, in the natural order of their names (``_SUCCESS``, ``.crc`` and other files beside
            them are left alone). Parquet, parts, dtypes other than float32 and "cosine" take a
            converted copy on disk inside the folder while the job runs.
        items: [N, d], likewise.
        folder: made if it is not there; else empty, or one that this call began before.
        query_ids: [Q] integers or strings, written instead of row numbers; may repeat.
        item_ids: [N] integers or strings, distinct, likewise.
        query_id_column: the Parquet column of ``query_ids``. Where positives have ids, or the other
            side's are given, by default ``id``, else the only column that could hold ids (a warning
            names it).
        item_id_column: likewise.
        query_vector_column: the Parquet column of vectors; by default the only one of lists.
        item_vector_column: likewise.
        shard_queries: queries of a shard. By default 65,536, fewer where a shard's results would
            not fit into a quarter of ``memory``.
        resume: False begins again: what an earlier job left in the folder is removed, as soon as
            the new inputs are checked and the engine is made.

    All other arguments are those of ``mine_hard_negatives``.

    Returns:
        The finished folder, as ``open_mined`` gives it.

    Raises:
        FastnegError: as ``mine_hard_negatives``; the folder is being written by another process.
        FileFormatError: the folder holds another job or other files, or cannot be written (a full
            disk); what was finished is kept.
        KeyboardInterrupt: with a message that says how much is finished.
    """
    started = time.perf_counter()
    settings = check_settings(
        call=CALL, window=window, num_negatives=num_negatives, metric=metric, strategy=strategy,
        temperature=temperature, min_score=min_score, max_score=max_score,
        absolute_margin=absolute_margin, relative_margin=relative_margin,
        max_per_item=max_per_item, group_rule=group_rule, drop_duplicates=drop_duplicates,
        search=search, recall=recall, memory=memory, device=device, seed=seed,
    )  # fmt: skip
    if shard_queries is not None:
        shard_queries = as_integer(
            shard_queries, call=CALL, name="shard_queries", minimum=1, maximum=2**62
        )
    resume = as_flag(resume, call=CALL, name="resume")
    progress = as_progress(progress, call=CALL)
    place = JobFolder(as_path(folder, call=CALL, name="folder"), call=CALL)
    with place.locked():
        place.refuse_other_files(resume=resume)
        cosine, columns = settings.metric == "cosine", (query_vector_column, item_vector_column)
        sides = [
            open_vectors(
                source, name, call=CALL, column=column, unit_length=cosine, scratch=place.path
            )
            for source, name, column in zip(
                (queries, items), ("queries", "items"), columns, strict=True
            )
        ]
        _same_width(*(side.matrix.shape for side in sides))
        found_ids = find_ids(
            [(queries, query_ids, query_id_column, query_vector_column),
             (items, item_ids, item_id_column, item_vector_column)],
            positives, query_users, call=CALL,
        )  # fmt: skip
        job = make_job(
            settings, sides[0].matrix, sides[1].matrix, positives=positives,
            query_users=query_users, query_groups=query_groups, item_groups=item_groups, call=CALL,
        )  # fmt: skip
        ids = JobIds(*found_ids, job, positives, query_users, call=CALL)
        identity = identity_of(job, settings, [side.fingerprint for side in sides], ids)
        run = _Run(place, job, settings, ids, progress=progress, started=started)
        run.prepare(identity, shard_queries, resume=resume)
        run.finish()
    return MinedFolder(place.path)


def _same_width(queries: tuple[int, ...], items: tuple[int, ...]) -> None:
    if 0 not in (queries[0], items[0]) and queries[1] != items[1]:
        fail(CALL, f"queries has vectors of width {queries[1]}, items of width {items[1]}")


class _Run:
    """One call on a job: what is done, what is left."""

    def __init__(
        self,
        place: JobFolder,
        job: Job,
        settings: MiningSettings,
        ids: JobIds,
        *,
        progress: ShowProgress,
        started: float,
    ) -> None:
        self.place, self.job, self.settings, self.ids = place, job, settings, ids
        self.progress, self._clock = progress, started
        self.manifest: Manifest = {}
        self.totals = Totals(len(job.items))
        self._engine: Engine | None = None
        self._windows = Windows(job)
        self._mined: set[int] = set()

    def prepare(self, identity: dict[str, Any], shard_queries: int | None, *, resume: bool) -> None:
        """Begin, or take up what is there and find what of it is whole."""
        found = read_manifest(self.place.path, call=CALL) if resume else None
        if found is None:
            self._begin(identity, shard_queries)
            return
        different = differences(found, identity)
        if shard_queries not in (None, found["shard_queries"]):
            different.append(f"shard_queries is {shard_queries}, was {found['shard_queries']}")
        if different:
            raise FileFormatError(
                f"{CALL}: {self.place.path} holds a job that was begun otherwise: "
                f"{'; '.join(different)}. Give another folder, or resume=False (--restart) to "
                "remove it and begin again"
            )
        self.manifest = found
        for number, entry in enumerate(found["shards"]):
            if entry is not None and not self.place.is_whole(entry):
                found["shards"][number] = None
        self._keep()

    def _begin(self, identity: dict[str, Any], shard_queries: int | None) -> None:
        settings, num_queries = self.settings, len(self.job.queries)
        engine = make_engine(self.job, settings.search, settings.recall, settings.device)
        self.place.remove()
        if shard_queries is None:
            fits = settings.memory // (4 * _ROW_BYTES * settings.num_negatives)
            shard_queries = min(_SHARD_QUERIES, max(1, fits))
        arrays = {
            name: self.place.write(f"engine-{name}.npy", array_pieces(array))
            for name, array in sorted(engine.arrays().items())
        }
        self.manifest = {
            "kind": KIND,
            "format": FORMAT,
            "complete": False,
            **identity,
            "shard_queries": shard_queries,
            "item_ids": self._write_item_ids(),
            "engine": {"facts": engine.facts(), "arrays": arrays},
            "expected": None,
            "shards": [None] * -(-num_queries // shard_queries),
            "report": None,
        }
        self.place.write_manifest(self.manifest)
        self._engine = engine
        self._log("begin")

    def _write_item_ids(self) -> Entry | None:
        ids = self.ids.items.stored
        if ids is None:
            return None
        table = pa.table({"code": np.arange(len(ids), dtype=np.int64), "id": pa.array(ids)})
        return self.place.write("items.parquet", [parquet_bytes(table)])

    def finish(self) -> None:
        """Mine what is missing; then the report.

        Raises:
            KeyboardInterrupt: with a message.
        """
        shards = self.manifest["shards"]
        if self.manifest["complete"] and None not in shards:
            return
        try:
            self.manifest["complete"], self.manifest["report"] = False, None
            engine = self._open_engine()
            if None in shards:
                weights = self._expect(engine)
                self._mine(engine, weights)
            self._report(engine)
        except KeyboardInterrupt as stop:
            done = sum(shard is not None for shard in shards)
            raise KeyboardInterrupt(
                f"{CALL}: {self.place.path} keeps {done} of {len(shards)} shards, and the same "
                "call goes on from there"
            ) from stop

    def _open_engine(self) -> Engine:
        if self._engine is None:
            stored = self.manifest["engine"]
            try:
                arrays = {name: self.place.array(e) for name, e in stored["arrays"].items()}
            except FileFormatError as error:
                raise FileFormatError(
                    f"{CALL}: the engine of {self.place.path} is damaged, and another would not "
                    "find the same: give another folder, or resume=False (--restart) to begin again"
                ) from error
            self._engine = open_engine(self.job, stored["facts"], arrays)
            self._log("resume")
        return self._engine

    def _rows(self, shard: int) -> tuple[int, int]:
        size = self.manifest["shard_queries"]
        return shard * size, min((shard + 1) * size, len(self.job.queries))

    def _expect(self, engine: Engine) -> FloatArray | None:
        """The first pass of ``max_per_item``, a running sum stored after each shard."""
        cap, shards = self.settings.max_per_item, self.manifest["shards"]
        if cap is None:
            return None
        stored, done = self.manifest["expected"], 0
        expected = np.zeros(len(self.job.items), np.int64)
        if stored is not None and self.place.is_whole(stored):
            expected, done = np.array(self.place.array(stored)), stored["shards"]
        label, first = "expecting", self._rows(done)[0]
        total = len(self.job.queries)
        with progress_bar(total, label, show=self.progress, done=min(first, total)) as advance:
            for shard in range(done, len(shards)):
                rows = self._rows(shard)
                expect_rows(self.job, engine.search, rows, self._windows, expected, advance)
                name = f"expected-{shard + 1:05d}.npy"
                entry = self.place.write(name, array_pieces(expected))
                self.manifest["expected"] = {**entry, "shards": shard + 1}
                self.place.write_manifest(self.manifest)
                self._keep()
                self._log("expected", shard=shard)
        return rules_of.log_weights(expected, cap)

    def _mine(self, engine: Engine, weights: FloatArray | None) -> None:
        shards = self.manifest["shards"]
        done = sum(entry["num_rows"] for entry in shards if entry is not None)
        with progress_bar(
            len(self.job.queries), "mining", show=self.progress, done=done
        ) as advance:
            for shard in [number for number, entry in enumerate(shards) if entry is None]:
                rows = self._rows(shard)
                drawn, tally = mine_rows(
                    self.job, engine.search, rows, self._windows, weights, advance
                )
                table = mined_table(
                    self.ids.column(*rows), drawn.items, drawn.scores, drawn.ranks,
                    self.ids.items.stored,
                )  # fmt: skip
                entry = self.place.write(shard_name(shard), [parquet_bytes(table)])
                entry |= {"first_row": rows[0], "num_rows": rows[1] - rows[0]}
                shards[shard] = entry | {"tally": tally.tolist()}
                self.totals.add(drawn.items, tally)
                self.place.write_manifest(self.manifest)
                self._log("shard", shard=shard)
                self._mined.add(shard)

    def _report(self, engine: Engine) -> None:
        for number, entry in enumerate(self.manifest["shards"]):
            if number not in self._mined:
                shard = shard_arrays(self.place, entry, self.settings.num_negatives, self.ids.items)
                self.totals.add(shard.items, np.array(entry["tally"]))
        report = (
            make_report(
                self.job, engine, self.totals, self.settings.window, self.settings.metric, 0.0
            ).to_dict()
            | self.ids.origin._asdict()
        )
        self.manifest["report"] = {k: v for k, v in report.items() if k not in NOT_IN_MANIFEST}
        self.manifest["complete"] = True
        self.place.write_manifest(self.manifest)
        self._log("end", block_rows=engine.search.block_rows)

    def _keep(self) -> None:
        listed = (*self.manifest["shards"], self.manifest["expected"])
        self.place.keep_only([entry["file"] for entry in listed if entry is not None])

    def _log(self, event: str, **facts: Any) -> None:
        now = time.perf_counter()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.place.log(event=event, at=at, seconds=round(now - self._clock, 3), **facts)
        self._clock = now
