"""What a mining job wrote: Parquet shards with one row a query, read back and checked.

A shard has the columns ``query`` (its id), ``items`` (ids), ``scores`` (float32) and ``ranks``
(int32), the last three lists of one length, shorter than ``num_negatives`` where a window had too
few eligible items. Ids are the user's own, or row numbers where none were given.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import AnyArray, Float32Array, IntArray, as_path, fail
from fastneg.columns import Ids, normalise_ids, to_numpy_column
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError, one_line, said_by
from fastneg.interactions import Interactions
from fastneg.lazy import lazy_module
from fastneg.mining.job_folder import Entry, JobFolder, Manifest, read_manifest
from fastneg.mining.miner import MinedNegatives
from fastneg.mining.report import MiningReport
from fastneg.vocabulary import Vocabulary

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")
pq = lazy_module("pyarrow.parquet")

_CALL = "open_mined"


class MinedShard(NamedTuple):
    """Consecutive queries and what was mined for them.

    Attributes:
        first_row: the row number of the first of them.
        query_ids: [B], int64 or Python strings; row numbers where no ids were given.
        items: int64 [B, n], row numbers of the catalog (``item_ids`` has their ids); -1: none.
        scores: float32 [B, n]; -inf where items is -1.
        ranks: int32 [B, n]; 0 where items is -1.
    """

    first_row: int
    query_ids: AnyArray
    items: IntArray
    scores: Float32Array
    ranks: npt.NDArray[np.int32]


def mined_table(
    query_ids: Any, items: IntArray, scores: Any, ranks: Any, item_ids: Ids | None
) -> Any:
    """An Arrow table of queries and lists, padding left out; see the module's text.

    Args:
        query_ids: an Arrow array of Q ids.
        items: int64 [Q, n], -1 where there is none.
        scores: float32 [Q, n].
        ranks: int32 [Q, n].
        item_ids: the catalog's ids; None for row numbers.
    """
    found = items >= 0
    offsets = pa.array(np.concatenate(([0], np.cumsum(found.sum(axis=1)))), pa.int64())
    codes = pa.array(items[found])
    values = {
        "items": codes if item_ids is None else pa.array(item_ids).take(codes),
        "scores": pa.array(scores[found], pa.float32()),
        "ranks": pa.array(ranks[found], pa.int32()),
    }
    lists = {name: pa.LargeListArray.from_arrays(offsets, value) for name, value in values.items()}
    return pa.table({"query": query_ids, **lists})


def parquet_bytes(table: Any) -> memoryview:
    """A Parquet file of a table: the same bytes for the same rows and version of pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", use_dictionary=False)
    return memoryview(sink.getvalue())


def shard_arrays(place: JobFolder, entry: Entry, width: int, vocabulary: Vocabulary) -> MinedShard:
    """A shard, its checksum checked, items as codes of ``vocabulary``.

    Raises:
        FileFormatError: the file is damaged, or from elsewhere.
    """
    content = place.read(entry)
    try:
        return _shard_arrays(content, entry, width, vocabulary, place.call)
    except (pa.ArrowException, KeyError, ValueError, TypeError, IndexError, MemoryError) as error:
        raise FileFormatError(
            f"{place.call}: {place.path / entry['file']} is damaged: {one_line(error)}"
        ) from error


def _shard_arrays(
    content: bytes, entry: Entry, width: int, vocabulary: Vocabulary, call: str
) -> MinedShard:
    table = pq.read_table(pa.BufferReader(content))
    lists = {name: table[name].combine_chunks() for name in ("items", "scores", "ranks")}
    if table.num_rows != entry["num_rows"]:
        raise ValueError(f"{table.num_rows} rows, not {entry['num_rows']}")
    counts = to_numpy_column(pc.list_value_length(lists["items"])).astype(np.int64)
    if int(counts.max(initial=0)) > width:
        raise ValueError(f"a list of {counts.max()} negatives, not {width}")
    found = np.arange(width) < counts[:, None]
    values = {name: to_numpy_column(pc.list_flatten(column)) for name, column in lists.items()}
    codes = vocabulary.encode(pc.list_flatten(lists["items"]), call=call, name="items")
    items = np.full(found.shape, -1, np.int64)
    scores = np.full(found.shape, -np.inf, np.float32)
    ranks = np.zeros(found.shape, np.int32)
    items[found], scores[found], ranks[found] = codes, values["scores"], values["ranks"]
    return MinedShard(entry["first_row"], to_numpy_column(table["query"]), items, scores, ranks)


def read_vocabulary(place: JobFolder, manifest: Manifest) -> Vocabulary:
    """The catalog's ids: those that were given, else row numbers."""
    entry = manifest["item_ids"]
    if entry is None:
        return Vocabulary(int(manifest["inputs"]["items"]["shape"][0]))
    table = pq.read_table(pa.BufferReader(place.read(entry)))
    return Vocabulary(normalise_ids(table["id"], call=place.call, name="items"))


class UserLists(tuple[IntArray, IntArray]):  # noqa: SLOT001  (a tuple has no room for any)
    """(indptr, items) in the codes of ``interactions``; ``ListedSampler`` compares them."""

    interactions: Interactions


class MinedFolder:
    """A finished folder of mined negatives; see ``open_mined``.

    Attributes:
        folder: where it is.
        manifest: inputs' and engine's fingerprints, settings, versions, shards and their checksums.
        report: counts, settings, the recall measured; ``seconds`` from the folder's log.
        num_queries: Q.
        num_items: N.
        num_negatives: n, draws asked of each query.
    """

    def __init__(self, folder: str | Path) -> None:
        with said_by("MinedFolder", _CALL):
            self._open(as_path(folder, call=_CALL, name="folder"))

    def _open(self, folder: Path) -> None:
        self.folder = folder
        self._place = JobFolder(self.folder, call=_CALL)
        manifest = read_manifest(self.folder, call=_CALL)
        if manifest is None:
            raise FileFormatError(f"{_CALL}: {self.folder} has no manifest.json")
        if not manifest["complete"]:
            done = sum(shard is not None for shard in manifest["shards"])
            raise FileFormatError(
                f"{_CALL}: {self.folder} is not finished ({done} of {len(manifest['shards'])} "
                "shards are); mining into it again with the same arguments goes on"
            )
        self.manifest = manifest
        lines = self._place.log_lines()
        seconds = [line.get("seconds") for line in lines]
        blocks = [line["block_rows"] for line in lines if type(line.get("block_rows")) is int]
        facts = {
            **manifest["report"],
            "window": tuple(manifest["report"]["window"]),
            "block_rows": blocks[-1] if blocks else 0,
            "seconds": float(sum(s for s in seconds if isinstance(s, int | float))),
        }
        self.report = MiningReport(**facts)
        self.num_queries, self.num_items = self.report.num_queries, self.report.num_items
        self.num_negatives = self.report.num_negatives
        self._vocabulary: Vocabulary | None = None

    def __len__(self) -> int:
        return self.num_queries

    def _items(self) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = read_vocabulary(self._place, self.manifest)
        return self._vocabulary

    @property
    def item_ids(self) -> AnyArray:
        """[N] the catalog's ids, int64 or Python strings; row numbers where none were given."""
        return self._items().ids()

    def shards(self) -> Iterator[MinedShard]:
        """The shards in order, one in memory at a time.

        Raises:
            FileFormatError: a file is missing, damaged or not the one that was written.
        """
        for entry in self.manifest["shards"]:
            yield shard_arrays(self._place, entry, self.num_negatives, self._items())

    def read(self) -> MinedNegatives:
        """Everything as ``mine_hard_negatives`` would have returned it: codes are row numbers.

        ``ListedSampler`` takes it where row u is user u.

        Raises:
            FileFormatError: as ``shards``.
        """
        shape = (self.num_queries, self.num_negatives)
        try:
            mined = MinedNegatives(
                np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape, np.int32),
                self.report,
            )  # fmt: skip
        except MemoryError as error:
            raise FastnegError(
                f"{_CALL}: {shape[0]} times {shape[1]} negatives do not fit into memory; read them "
                "shard by shard (shards())"
            ) from error
        for shard in self.shards():
            rows = slice(shard.first_row, shard.first_row + len(shard.items))
            mined.items[rows], mined.scores[rows] = shard.items, shard.scores
            mined.ranks[rows] = shard.ranks
        return mined

    def lists(self, interactions: Interactions) -> UserLists:
        """(indptr [users + 1], items) in the codes of ``interactions``, for ``ListedSampler``.

        Queries and items are found by their ids. A user's queries are put together; a user without
        one has an empty list; queries and items that ``interactions`` does not know are left out.

        Raises:
            FileFormatError: as ``shards``.
            FastnegError: no query's id is a user's.
        """
        if not isinstance(interactions, Interactions):
            raise FastnegTypeError(
                "MinedFolder.lists: interactions is a "
                f"{type(interactions).__name__}, not Interactions"
            )
        codes = np.append(interactions.encode_items(self.item_ids, unknown=-1), -1)
        users, items = [], []
        for shard in self.shards():
            owners = interactions.encode_users(shard.query_ids, unknown=-1)
            known = codes[shard.items]  # -1 picks the -1 at the end
            kept = (known >= 0) & (owners[:, None] >= 0)
            users.append(np.broadcast_to(owners[:, None], kept.shape)[kept])
            items.append(known[kept])
        owner, item = np.concatenate(users), np.concatenate(items)
        if owner.size == 0 and self.report.empty_rows < self.num_queries:
            fail(
                _CALL,
                f"no query of {self.folder} with negatives has the id of a user, or none of its "
                "items is known; give the interactions whose ids the vectors have",
            )
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=interactions.num_users)
        indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        lists = UserLists((indptr, item[order]))
        lists.interactions = interactions
        return lists


def open_mined(folder: str | Path) -> MinedFolder:
    """The negatives that ``mine_to_folder`` or ``fastneg mine`` wrote into a folder.

    Checksums are compared as shards are read::

        mined = fastneg.open_mined("mined")
        print(mined.report)
        for shard in mined.shards():                             # one in memory at a time
            shard.query_ids, shard.items, shard.scores, shard.ranks
        hard = fastneg.ListedSampler(mined.lists(interactions), interactions=interactions)

    Raises:
        FileFormatError: not such a folder, an unfinished or a damaged one.
    """
    with said_by(_CALL, "MinedFolder"):
        return MinedFolder(folder)
