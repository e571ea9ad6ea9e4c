"""One suite per port of `kato.stores.ports`, run over every adapter."""
