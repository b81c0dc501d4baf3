"""Utilities: files, logging, meters, registries, checkpoints."""

from .checkpoints import load_checkpoint, resume_from_checkpoint, save_checkpoint
from .files import check_isfile, listdir_nohidden, mkdir_if_missing, read_json, write_json
from .images import ImageReadError, read_image
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry, check_availability
from .tools import collect_env_info, set_random_seed, tolist_if_not
from .torchtools import count_num_param, load_pretrained_weights
from .unpickling import UnsafePickleError, load_pickle

__all__ = [
    "AverageMeter",
    "ImageReadError",
    "Logger",
    "MetricMeter",
    "Registry",
    "UnsafePickleError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pickle",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
