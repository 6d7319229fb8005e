"""Whole model repos on the Hub: publish a model with all that a stranger needs, and tell what a repo lacks."""

from .check import check_repo
from .push import push_model_repo

__all__ = ["check_repo", "push_model_repo"]
