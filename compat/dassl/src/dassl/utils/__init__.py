"""Utilities: files, logging, meters, registries, checkpoints."""

from .checkpoints import load_checkpoint, resume_from_checkpoint, save_checkpoint
from .files import check_isfile, listdir_nohidden, mkdir_if_missing, read_json, write_json
from .images import ImageReadError, read_image
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry, check_availability, get_most_similar_str_to_a_from_b
from .tools import collect_env_info, download_url, set_random_seed, tolist_if_not
from .torchtools import (
    count_num_param,
    init_network_weights,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
)
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
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "init_network_weights",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pickle",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "open_all_layers",
    "open_specified_layers",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
