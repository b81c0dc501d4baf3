"""Sections of the config, by name, and what declares them."""

from __future__ import annotations

from coft.method.coft import CoFTSettings
from coft.method.coft_plus import CoFTPlusSettings
from coft.rivals.deft import DeFTSettings
from coft.rivals.grip import GRIPSettings
from coft.rivals.lafter import LaFTerSettings
from coft.rivals.norm_adaptation import NormAdaptationSettings
from coft.rivals.prompt_tuning import CoOpSettings, UPLSettings
from coft.rivals.self_training import SelfTrainingSettings

from .oracle import OracleSettings
from .supervised import SupervisedSettings

SECTIONS: dict[str, type] = {
    "COOP": CoOpSettings,
    "UPL": UPLSettings,
    "GRIP": GRIPSettings,
    "COFT": CoFTSettings,
    "COFTPLUS": CoFTPlusSettings,
    "COFTORACLE": OracleSettings,
    "DEFT": DeFTSettings,
    "SELFTRAINING": SelfTrainingSettings,
    "SUPERVISED": SupervisedSettings,
    "LAFTER": LaFTerSettings,
    "NORMADAPTATION": NormAdaptationSettings,
}
