"""fastneg: negatives for training retrieval models.

Drawn exactly from the distribution asked for, with the log-probability that the loss needs, and
mined from a rank window over large catalogs. Names below are imported when they are first used, so
that ``import fastneg`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AliasTable": "fastneg.samplers.alias_table",
    "Audit": "fastneg.samplers.audit",
    "AvailableSampler": "fastneg.samplers.available",
    "CheckpointError": "fastneg.errors",
    "Dataset": "fastneg.data.datasets",
    "Events": "fastneg.data.events",
    "ExhaustedUserError": "fastneg.errors",
    "FastnegError": "fastneg.errors",
    "FastnegMemoryError": "fastneg.errors",
    "FastnegTypeError": "fastneg.errors",
    "FeatureTable": "fastneg.data.features",
    "FileFormatError": "fastneg.errors",
    "FrequencyEstimator": "fastneg.samplers.frequency",
    "GroupedSampler": "fastneg.samplers.grouped",
    "Interactions": "fastneg.interactions",
    "ListedSampler": "fastneg.samplers.listed",
    "LogUniformSampler": "fastneg.samplers.log_uniform",
    "MinedFolder": "fastneg.mining.mined_folder",
    "MinedNegatives": "fastneg.mining.miner",
    "MixedSampler": "fastneg.samplers.mixed",
    "NegativeBatches": "fastneg.training.batches",
    "Negatives": "fastneg.samplers.results",
    "PopularitySampler": "fastneg.samplers.popularity",
    "Sampler": "fastneg.samplers.base",
    "Settings": "fastneg.training.settings",
    "Split": "fastneg.data.splits",
    "StreamingPopularitySampler": "fastneg.samplers.streaming",
    "SubsampledPositives": "fastneg.samplers.subsampling",
    "Trainer": "fastneg.training.trainer",
    "TwoTower": "fastneg.training.towers",
    "UniformSampler": "fastneg.samplers.uniform",
    "UnknownIdError": "fastneg.errors",
    "WindowDiagnosis": "fastneg.mining.diagnosis",
    "bce_loss": "fastneg.training.losses",
    "bilateral_softmax_loss": "fastneg.training.bilateral_softmax",
    "bpr_loss": "fastneg.training.losses",
    "cosine_contrastive_loss": "fastneg.training.margin_losses",
    "diagnose_window": "fastneg.mining.diagnose",
    "evaluate": "fastneg.training.evaluation",
    "evaluate_events": "fastneg.training.event_evaluation",
    "evaluate_sampled": "fastneg.training.sampled_evaluation",
    "full_softmax_loss": "fastneg.training.full_softmax",
    "gbce_loss": "fastneg.training.binary_losses",
    "get_num_threads": "fastneg.threads",
    "given_candidates": "fastneg.training.given_candidates",
    "hinge_loss": "fastneg.training.margin_losses",
    "hold_out_validation": "fastneg.data.splits",
    "in_batch_log_q": "fastneg.training.log_q",
    "in_batch_softmax_loss": "fastneg.training.losses",
    "keep_probabilities": "fastneg.samplers.subsampling",
    "load_features": "fastneg.training.outputs",
    "load_model": "fastneg.training.outputs",
    "mine_hard_negatives": "fastneg.mining.miner",
    "mine_to_folder": "fastneg.mining.shards",
    "mixed_log_q": "fastneg.training.log_q",
    "mixed_negative_loss": "fastneg.training.losses",
    "nce_loss": "fastneg.training.binary_losses",
    "open_mined": "fastneg.mining.mined_folder",
    "read_events": "fastneg.data.events",
    "recipe": "fastneg.recipes",
    "set_num_threads": "fastneg.threads",
    "softmax_loss": "fastneg.training.losses",
    "split_by_time": "fastneg.data.splits",
    "split_last_fraction": "fastneg.data.splits",
    "split_leave_last_out": "fastneg.data.splits",
    "split_random": "fastneg.data.splits",
    "subsample_positives": "fastneg.samplers.subsampling",
    "train_instances": "fastneg.samplers.instances",
    "train_recipe": "fastneg.recipes",
}

__all__ = [*sorted(_HOMES), "__version__"]  # noqa: PLE0604  (all are names; checked by a test)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fastneg' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
