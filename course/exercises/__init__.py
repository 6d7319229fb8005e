"""Functions to fill in, each with a check that tells what is wrong. 填空练习：检查程序会告诉你错在哪里。

Open a file of this folder, write its function, and run it: `python -m course.exercises.attention`. The solutions are
in `solutions/`, with the mistakes that the checks know.
"""
