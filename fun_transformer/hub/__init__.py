"""Whole model repos on the Hub: recipes, cards, publishing with all that other people need, and a check of a repo."""

from .card import Score, TrainingFacts, training_card
from .check import check_repo
from .push import push_model_repo
from .recipes import recipe_names, shipped_recipe

__all__ = [
    "Score",
    "TrainingFacts",
    "check_repo",
    "push_model_repo",
    "recipe_names",
    "shipped_recipe",
    "training_card",
]
