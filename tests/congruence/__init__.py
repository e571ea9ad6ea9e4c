"""KATO in six forms, compared."""
