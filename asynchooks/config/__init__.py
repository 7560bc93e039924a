"""Configurations: files that inherit from one another, and the modules that they ask for.

MMEngine's format, read by code of this package: `_base_` across formats, `_delete_`, references to bases and custom
imports are what its users' files are made of. Neither OmegaConf (an interpolation of its own, no files that inherit,
no classes or tuples as values) nor dynaconf (layers of settings) reads them; mmengine does, but it is a framework to
install for it, lets a YAML file build Python objects, and dumps entries in another order than theirs, which is that
of the hooks. PyYAML, json and tomllib read the formats.
"""

from asynchooks.config._config import Config
from asynchooks.config._dict import ConfigDict
from asynchooks.config._imports import import_modules
from asynchooks.config._options import DictAction, parse_options
from asynchooks.config._script import read_base

__all__ = ["Config", "ConfigDict", "DictAction", "import_modules", "parse_options", "read_base"]
