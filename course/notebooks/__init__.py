"""The chapters of docs/course.md as notebooks, made by `python -m course.notebooks.build`."""
