"""Interactions in a folder: rows, ids and positives, memory-mapped and validated when opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastneg.checks import AnyArray
from fastneg.errors import FileFormatError
from fastneg.files import MANIFEST, parse_manifest
from fastneg.rows import Rows, fault_of_rows
from fastneg.storage import SavedFolder, write_folder
from fastneg.vocabulary import Vocabulary

_ROWS = ("row_users", "row_items", "row_weights", "row_times")
_POSITIVES = ("positive_indptr", "positive_items", "positive_weights", "positive_times")
_IDS = (("user_ids", "num_users"), ("item_ids", "num_items"))
_KIND, _VERSION = "fastneg interactions", 2


def save_rows(
    folder: str | Path, rows: Rows, users: Vocabulary, items: Vocabulary, *, call: str
) -> None:
    """Write all rows, ids and positives.

    Raises:
        FileFormatError: the folder cannot be written, or holds other files.
    """
    named = {name: getattr(rows, name) for name in (*_ROWS, *_POSITIVES)}
    arrays: dict[str, Any] = {name: array for name, array in named.items() if array is not None}
    texts: dict[str, Any] = {}
    counted = [
        name
        for (name, _), one in zip(_IDS, (users, items), strict=True)
        if one.kind == "range" and one.named
    ]
    for (name, _), vocabulary in zip(_IDS, (users, items), strict=True):
        if vocabulary.kind == "integer":
            arrays[name] = vocabulary.stored
        elif vocabulary.kind == "text":
            texts[name] = vocabulary.stored
    write_folder(
        folder,
        call=call,
        kind=_KIND,
        version=_VERSION,
        arrays=arrays,
        texts=texts,
        facts={"num_users": rows.num_users, "num_items": rows.num_items, "ids_0_to_n": counted},
    )


def has_ids(folder: Path) -> bool:
    """Whether users and items of a saved folder have ids; True too for what ``SavedRows`` refuses.

    Interactions that were made of codes alone have none.
    """
    try:
        manifest = parse_manifest(folder / MANIFEST)
    except (OSError, FileFormatError):
        return True
    parts = [manifest.get(part) for part in ("arrays", "texts", "ids_0_to_n")]
    known = [name for part in parts if isinstance(part, dict | list) for name in part]
    return manifest.get("kind") != _KIND or all(name in known for name, _ in _IDS)


class SavedRows:
    """What ``save_rows`` wrote.

    Args:
        folder, call, verify: as for ``SavedFolder``.

    Attributes:
        users, items: the ids.
        columns: users, items, weights and times of the rows; the last two may be None.

    Raises:
        FileFormatError: not such a folder, or a damaged one.
    """

    def __init__(self, folder: str | Path, *, call: str, verify: bool) -> None:
        self._saved = saved = SavedFolder(
            folder, call=call, kind=_KIND, version=_VERSION, verify=verify
        )
        self.users, self.items = (self._ids(*names) for names in _IDS)
        users, items, weights, times = (saved.array(name) for name in _ROWS)
        if users is None or items is None:
            raise saved.damaged(MANIFEST, "it lists no rows")
        fault = fault_of_rows(users, items, weights, times, len(self.users), len(self.items))
        if fault is not None:
            raise saved.damaged(*fault)
        self.columns: tuple[AnyArray, AnyArray, AnyArray | None, AnyArray | None] = (
            users, items, weights, times,
        )  # fmt: skip

    def _ids(self, name: str, size: str) -> Vocabulary:
        saved, number = self._saved, self._saved.size(size)
        stored = saved.array(name)
        if stored is not None and (stored.dtype != np.int64 or stored.ndim != 1):
            raise saved.damaged(name, f"{stored.dtype}, shape {stored.shape}, is no row of ids")
        ids = stored if stored is not None else saved.text(name)
        if ids is not None and len(ids) != number:
            raise saved.damaged(name, f"{len(ids)} ids, {number} expected")
        if ids is not None:
            return Vocabulary(ids)
        counted = saved.manifest.get("ids_0_to_n")
        return Vocabulary(number, named=isinstance(counted, list) and name in counted)

    def give_positives(self, rows: Rows) -> None:
        """Let the rows adopt the positives saved with them, after every code of both is checked.

        Raises:
            FileFormatError: something does not fit.
        """
        fault = rows.adopt(*(self._saved.array(name) for name in _POSITIVES))
        if fault is not None:
            raise self._saved.damaged(fault[0], fault[1])
