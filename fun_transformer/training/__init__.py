"""The trainer."""

from . import metrics as metrics
from . import objectives as objectives  # both fill the tables that recipes are checked against
