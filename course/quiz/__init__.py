"""Thirty questions on code and masks, whose answers a test checks by running them: `python -m course.quiz.build`."""
