"""Packages that results are held against; see `oracles.txt`."""

import sys
from pathlib import Path

sys.path.append(str(Path(sys.prefix, "oracles")))

import museval as museval
import pychorus as pychorus
