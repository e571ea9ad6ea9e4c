"""Test code that several suites share: clocks, waiting, observations, server processes."""
