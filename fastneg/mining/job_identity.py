"""What decides a byte of a mining job's result: fingerprints of inputs, settings, versions."""

from __future__ import annotations

import hashlib
import warnings
from importlib import metadata
from typing import Any

import numpy as np

import fastneg
from fastneg.checks import AnyArray, as_name, fail, shown
from fastneg.columns import Ids, normalise_ids, to_numpy_column
from fastneg.lazy import lazy_module
from fastneg.mining.arguments import MiningSettings
from fastneg.mining.job import Job
from fastneg.mining.job_folder import Manifest
from fastneg.mining.keys import IDS, NOTHING, Keyed, ids_of_file
from fastneg.mining.origin import origin_of
from fastneg.vocabulary import Encoded, Vocabulary

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")


def _fits(name: str, ids: Ids, length: int, call: str) -> None:
    if len(ids) != length:
        fail(call, f"{name} has {len(ids)} ids and there are {length} vectors")


class JobIds:
    """The ids of both sides; row numbers where none are given."""

    def __init__(
        self,
        queries: Any,
        items: Any,
        job: Job,
        positives: Any = None,
        query_users: Any = None,
        *,
        call: str,
    ) -> None:
        self.queries: Ids | None = None
        self.items = Vocabulary(len(job.items))
        if queries is not None:
            self.queries = normalise_ids(queries, call=call, name="query_ids")
            _fits("query_ids", self.queries, len(job.queries), call)
        if items is not None:
            given = normalise_ids(items, call=call, name="item_ids")
            _fits("item_ids", given, len(job.items), call)
            self.items = Vocabulary.build(
                [], given, call=call, name="item_ids", table_name="item_ids"
            )[0]
        self.origin = origin_of(
            positives,
            query_users,
            self._of_queries(call),
            None if items is None else self.items,
            call=call,
        )

    def _of_queries(self, call: str) -> Vocabulary | None:
        """The ids of the queries, where each is of one."""
        if self.queries is None:
            return None
        found, codes = Vocabulary.build(self.queries, call=call, name="query_ids")
        return found if len(found) == len(codes) else None

    def column(self, first: int, last: int) -> Any:
        """The ids of some queries, an Arrow array."""
        if self.queries is None:
            return pa.array(np.arange(first, last, dtype=np.int64))
        return pa.array(self.queries[first:last])


def find_ids(
    sides: list[tuple[Any, Any, str | None, str | None]],
    positives: Any,
    query_users: Any,
    *,
    call: str,
) -> tuple[Any, Any]:
    """The ids of queries and of items: given, or those that their Parquet files have.

    Files are looked into where positives have ids, or, without positives, where the other side's
    ids are given. Positives without ids speak of row numbers.

    Args:
        sides: queries, then items: (vectors, ids, the column of ids, the column of vectors).
        positives, query_users: as ``mine_to_folder`` takes them.
        call: who asks, for errors.

    Raises:
        FastnegError: ids given twice; several columns that could be the ids.
    """
    named = [False, False]
    if isinstance(positives, Encoded):
        named = [query_users is None and positives._users.named, positives._items.named]
    is_given = any(ids is not None or key is not None for _, ids, key, _ in sides)
    wanted = any(named) or (positives is None and is_given)
    found = []
    for side, (source, ids, key, vectors), has_ids in zip(
        ("query", "item"), sides, named, strict=True
    ):
        if key is not None:
            as_name(key, call=call, name=f"{side}_id_column")
        if ids is not None and key is not None:
            fail(call, f"{side}_ids and {side}_id_column = {key!r} are both given; give one")
        if ids is not None or not (wanted or key is not None):
            found.append(ids)
            continue
        repeats = side == "query" and not has_ids
        keyed = Keyed(f"{side}_id_column", IDS if has_ids else NOTHING, repeats)
        own, said = ids_of_file(source, vectors, key, keyed, call=call)
        if said and (own is not None or not has_ids):
            warnings.warn(f"{call}: {said}", UserWarning, stacklevel=4)
        found.append(own)
    return found[0], found[1]


def identity_of(
    job: Job, settings: MiningSettings, vectors: list[dict[str, Any]], ids: JobIds
) -> dict[str, Any]:
    """What decides a byte of the result, as JSON has it."""
    rules, lists = job.rules, job.positives
    groups = None
    if rules.query_groups is not None and rules.item_groups is not None:
        groups = digest_of(rules.query_groups, rules.item_groups)
    inputs = {
        "queries": vectors[0],
        "items": vectors[1],
        "positives": digest_of(lists.starts, lists.stops, lists.items),
        "groups": groups,
        "query_ids": None if ids.queries is None else ids_digest(ids.queries),
        "item_ids": None if ids.items.stored is None else ids_digest(ids.items.stored),
    }
    asked = vars(settings) | {"window": list(settings.window)}
    for name in ("memory", "device"):  # they change no id
        del asked[name]
    versions = {
        "fastneg": fastneg.__version__,
        "numpy": np.__version__,
        "faiss": _faiss_version(),
        "pyarrow": pa.__version__,
    }
    return {"inputs": inputs, "settings": asked, "versions": versions}


def _faiss_version() -> str:
    for name in ("faiss-cpu", "faiss-gpu", "faiss"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def differences(old: Manifest, new: dict[str, Any]) -> list[str]:
    """What is not as it was when the job began, in words."""
    words = []
    for name, found in new["inputs"].items():
        was = old["inputs"].get(name)
        if (found is None) != (was is None):
            words.append(f"{name} is {'missing' if found is None else 'new'}")
        elif found is not None and found["shape"] != was["shape"]:
            words.append(f"{name} has shape {tuple(found['shape'])}, had {tuple(was['shape'])}")
        elif found != was:
            words.append(f"{name} has other contents")
    for part in ("settings", "versions"):
        words += [
            f"{name} is {shown(found)}, was {shown(old[part].get(name))}"
            for name, found in new[part].items()
            if found != old[part].get(name)
        ]
    return words


def ids_digest(ids: Ids) -> dict[str, Any]:
    """A fingerprint of ids and their order."""
    if isinstance(ids, np.ndarray):
        pieces = [ids]
    else:
        lengths = to_numpy_column(pc.binary_length(ids))
        pieces = [lengths.astype(np.int64), np.frombuffer("".join(ids.to_pylist()).encode(), "u1")]
    return digest_of(*pieces)


def digest_of(*arrays: AnyArray) -> dict[str, Any]:
    """A fingerprint of arrays: the first one's shape, the SHA-256 of all their bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        if array.size:
            digest.update(np.ascontiguousarray(array).data.cast("B"))
    return {"shape": list(arrays[0].shape), "sha256": digest.hexdigest()}
