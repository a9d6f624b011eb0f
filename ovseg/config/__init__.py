"""OVSeg's config keys, what they may be, and how a config is read from a file."""

from .checks import check_config
from .files import default_cfg, setup_cfg
from .keys import add_ovseg_config

__all__ = ["add_ovseg_config", "check_config", "default_cfg", "setup_cfg"]
