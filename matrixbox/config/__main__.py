"""Print the configuration file with all defaults: `python -m matrixbox.config > matrixbox.toml`."""

import sys

from matrixbox.config.example import example

sys.stdout.write(example())
