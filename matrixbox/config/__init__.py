"""The configuration: frozen settings, read once from a TOML file.

`load(path)` gives `Settings`; `load(None)` gives the loopback try-out. What the household changes
while the server runs is in the database, not here.
"""

from matrixbox.config.kinds import Address
from matrixbox.config.reading import EXIT_CONFIG, ConfigError, Problem, default_data_dir, load
from matrixbox.config.settings import Settings

__all__ = [
    "EXIT_CONFIG",
    "Address",
    "ConfigError",
    "Problem",
    "Settings",
    "default_data_dir",
    "load",
]
