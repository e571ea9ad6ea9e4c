"""What can be said to KATO from Python: the verbs, once, for the embedded and the remote one.

`values` brings arguments into JSON, `calls` makes a request of every verb and reads its answer, `sync` and
`asynchronous` are the thin classes that people use. Who carries a call out is not known here.
"""
