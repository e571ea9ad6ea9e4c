"""What only the embedded stores do: files, locks, crashes, damage."""
