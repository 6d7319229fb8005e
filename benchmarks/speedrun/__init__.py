"""Time to a quality: fixed data, fixed targets, a log for each record. README.md has the rules and the records."""
