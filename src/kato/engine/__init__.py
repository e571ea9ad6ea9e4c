"""The pure engine: what KATO computes, without I/O, clock, randomness, logging or shared state.

Every function takes plain values of `kato.model` and returns new ones, so the same input gives the same
answer on any machine. Section numbers in the docstrings are those of behaviour.md.
"""
