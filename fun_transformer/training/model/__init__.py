"""Models before, during and after their training: built, initialized, wrapped, kept, averaged."""
