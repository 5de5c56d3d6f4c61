"""Packages that results are held against; see `oracles.txt`."""

import sys
from pathlib import Path

sys.path.append(str(Path(sys.prefix, "oracles")))

import crc32c as crc32c
import museval as museval
import pychorus as pychorus
import tfrecord as tfrecord
