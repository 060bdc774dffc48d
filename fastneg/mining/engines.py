"""Engines: made and calibrated once for a job, and made again from what was stored of them.

A job that is interrupted goes on with the very engine it began with: ``Engine.facts`` and
``Engine.arrays`` are all that decides what it finds, and ``open_engine`` makes it again from them,
without training or calibrating anything.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import IntArray, fail
from fastneg.mining.calibrate import Tunable, calibrate, find_all
from fastneg.mining.devices import Device, choose_device, torch_device
from fastneg.mining.job import Job
from fastneg.mining.search import Engine, Search, empty_window
from fastneg.streams import key_of, permutation, stream_of

_SAMPLE_QUERIES = 512
_HALF_PAYS = 65_536  # items from which it is worth finding out
_PRODUCTS_PER_RANK = 40  # of IVF, for each rank of the depth
_VISITED = 6  # products of exact search by tiles in the time of one of IVF's visits


def make_engine(job: Job, search: str, recall: float, device: str) -> Engine:
    """The engine asked for, calibrated where it is approximate.

    Raises:
        FastnegError: an engine or device that there is not, too little memory, too few items.
    """
    chosen = choose_device(device, call=job.call)
    depth = job.window[1]

    if search == "auto":
        search = "ivf" if chosen.type == "cpu" and recall < 1 and prefers_ivf(job) else "exact"
    if search == "exact" or job.window[0] > depth:
        return Engine(_exact(job, len(job.queries), chosen), {}, None, 1.0, 0, str(chosen))
    index: Tunable
    if search == "ivf":
        from fastneg.mining import ivf

        count = ivf.num_lists_for(len(job.items))
        index = ivf.IvfSearch(job.items, count, job.memory, depth, job.rules.seed, call=job.call)
    else:
        from fastneg.mining import faiss_index

        most = int(job.positives.counts.max())
        index = faiss_index.FaissSearch(
            job.items, search[6:].strip(), job.memory, depth, most, call=job.call
        )
    rows = _sample(job)
    sample, lists = np.ascontiguousarray(job.queries[rows]), job.positives.take(rows)
    true = empty_window(0, job.window)
    if rows.size:
        true = find_all(_exact(job, rows.size, chosen), sample, lists, job.window)
    value, reached = calibrate(index, sample, lists, job.window, true, recall)
    if reached < recall:
        warnings.warn(
            f"{job.call}: search = {search!r} ({index.name}) finds {reached:.3f} of the true "
            f"window members at best, and recall = {recall} was asked; use 'exact' or a finer "
            "index",
            stacklevel=3,  # the line that called mine_hard_negatives
        )
    effort = {} if index.effort is None else {index.effort: value}
    return Engine(index, effort, recall, reached, rows.size, "cpu")


def _sample(job: Job) -> IntArray:
    """The rows that recall is measured on, ascending: of the queries that need a search."""
    order = permutation(key_of(job.rules.seed, stream_of("mining", "sample")), len(job.queries))
    needing = order[~job.constant_rows(slice(None))[order]]
    return np.sort(needing[:_SAMPLE_QUERIES])


def prefers_ivf(job: Job) -> bool:
    """Whether batched IVF, all in, takes less than half of what exact search takes.

    By a count of products, the measure of both: exact search makes Q N of them; IVF trains and
    fills its lists, searches its sample exactly, and makes L + 40 * depth for a query (what 0.95
    of a window took on mixtures and embeddings). By tiles, where a product costs next to nothing,
    one of a visit takes the time of six others: choosing among many costs more than among few.
    """
    from fastneg.mining import packed
    from fastneg.mining.ivf import num_lists_for, training_products

    num_queries, num_items = len(job.queries), len(job.items)
    if job.constant is not None:  # they are not searched
        num_queries -= int(np.count_nonzero(job.constant))
    lists = num_lists_for(num_items)
    visited = _VISITED if packed.HAS_AMX else 1
    sample = min(_SAMPLE_QUERIES, num_queries) * num_items
    once = training_products(num_items, lists) + sample
    each = visited * (lists + min(num_items, _PRODUCTS_PER_RANK * job.window[1]))
    return num_queries * num_items > 2 * (once + num_queries * each)


def _exact(job: Job, num_queries: int, device: Device) -> Search:
    """The fastest exact search of this machine; they all find the same."""
    from fastneg.mining import packed, tile_search

    num_items, width = job.items.shape
    if device.type == "cpu" and packed.HAS_AMX:
        plan = tile_search.plan_tiles(num_items, width, job.window[1], job.memory)
        if plan is not None:
            return tile_search.TileSearch(job.items, plan)
    from fastneg.mining import exact  # brings torch

    half = device.type == "cpu" and num_items >= _HALF_PAYS and exact.half_pays()
    copies = 2 * num_items * width if half else 0
    if copies > job.memory // 2:
        half, copies = False, 0
    blocks = exact.plan_blocks(
        num_queries, num_items, width, job.window[1], job.memory - copies, call=job.call
    )
    return exact.ExactSearch(
        job.items, blocks, torch_device(device), "bfloat16" if half else "float32"
    )


def open_engine(job: Job, facts: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> Engine:
    """The engine whose ``facts`` and ``arrays`` these are.

    Raises:
        FastnegError: this machine cannot make it (a device, an arithmetic it does not have).
    """
    name = facts["search"]
    search: Search
    if name == "exact":
        device = choose_device(facts["device"], call=job.call)
        search = _exact(job, len(job.queries), device)
    elif name == "ivf":
        from fastneg.mining import ivf

        search = ivf.IvfSearch(
            job.items, facts["num_lists"], job.memory, job.window[1], job.rules.seed, call=job.call,
            saved=arrays,
        )  # fmt: skip
        nprobe = facts["nprobe"]
        if not isinstance(nprobe, int) or not 1 <= nprobe <= search.most_effort:
            fail(job.call, f"the stored nprobe, {nprobe!r}, is not 1 .. {search.most_effort}")
        search.set_effort(nprobe)
    else:
        from fastneg.mining import faiss_index

        most = int(job.positives.counts.max(initial=0))
        index = faiss_index.FaissSearch(
            job.items, name.removeprefix("faiss:"), job.memory, job.window[1], most, call=job.call,
            saved=arrays["index"],
        )  # fmt: skip
        if index.effort is not None:
            index.set_effort(facts["effort"][index.effort])
        search = index
    return Engine(
        search, facts["effort"], facts["recall_asked"], facts["recall"], facts["recall_queries"],
        facts["device"],
    )  # fmt: skip
