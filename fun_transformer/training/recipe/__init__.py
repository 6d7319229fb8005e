"""The recipe of a run: its fields, how it is read and checked, and what is chosen where it says `auto`."""
