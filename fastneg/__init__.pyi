"""What type checkers see of the lazily imported names; a test compares it with __init__.py."""

from fastneg.data.datasets import Dataset as Dataset
from fastneg.data.features import FeatureTable as FeatureTable
from fastneg.data.splits import Split as Split
from fastneg.data.splits import hold_out_validation as hold_out_validation
from fastneg.data.splits import split_by_time as split_by_time
from fastneg.data.splits import split_last_fraction as split_last_fraction
from fastneg.data.splits import split_leave_last_out as split_leave_last_out
from fastneg.data.splits import split_random as split_random
from fastneg.errors import CheckpointError as CheckpointError
from fastneg.errors import ExhaustedUserError as ExhaustedUserError
from fastneg.errors import FastnegError as FastnegError
from fastneg.errors import FastnegTypeError as FastnegTypeError
from fastneg.errors import FileFormatError as FileFormatError
from fastneg.errors import UnknownIdError as UnknownIdError
from fastneg.interactions import Interactions as Interactions
from fastneg.mining.miner import MinedNegatives as MinedNegatives
from fastneg.mining.miner import mine_hard_negatives as mine_hard_negatives
from fastneg.recipes import recipe as recipe
from fastneg.recipes import train_recipe as train_recipe
from fastneg.samplers.alias_table import AliasTable as AliasTable
from fastneg.samplers.base import Sampler as Sampler
from fastneg.samplers.instances import train_instances as train_instances
from fastneg.samplers.listed import ListedSampler as ListedSampler
from fastneg.samplers.mixed import MixedSampler as MixedSampler
from fastneg.samplers.popularity import PopularitySampler as PopularitySampler
from fastneg.samplers.results import Negatives as Negatives
from fastneg.samplers.uniform import UniformSampler as UniformSampler
from fastneg.threads import get_num_threads as get_num_threads
from fastneg.threads import set_num_threads as set_num_threads
from fastneg.training.batches import NegativeBatches as NegativeBatches
from fastneg.training.evaluation import evaluate as evaluate
from fastneg.training.log_q import in_batch_log_q as in_batch_log_q
from fastneg.training.log_q import mixed_log_q as mixed_log_q
from fastneg.training.losses import bce_loss as bce_loss
from fastneg.training.losses import bpr_loss as bpr_loss
from fastneg.training.losses import in_batch_softmax_loss as in_batch_softmax_loss
from fastneg.training.losses import mixed_negative_loss as mixed_negative_loss
from fastneg.training.losses import softmax_loss as softmax_loss
from fastneg.training.outputs import load_model as load_model
from fastneg.training.sampled_evaluation import evaluate_sampled as evaluate_sampled
from fastneg.training.settings import Settings as Settings
from fastneg.training.towers import TwoTower as TwoTower
from fastneg.training.trainer import Trainer as Trainer

__version__: str
__all__: list[str]
from fastneg.samplers.audit import Audit as Audit
from fastneg.samplers.available import AvailableSampler as AvailableSampler
from fastneg.samplers.frequency import FrequencyEstimator as FrequencyEstimator
from fastneg.samplers.grouped import GroupedSampler as GroupedSampler
from fastneg.samplers.log_uniform import LogUniformSampler as LogUniformSampler
from fastneg.samplers.streaming import StreamingPopularitySampler as StreamingPopularitySampler
from fastneg.samplers.subsampling import SubsampledPositives as SubsampledPositives
from fastneg.samplers.subsampling import keep_probabilities as keep_probabilities
from fastneg.samplers.subsampling import subsample_positives as subsample_positives
