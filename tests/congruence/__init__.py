"""KATO in four forms, compared."""
