"""The network: `config` says which, `network` builds it, `heads` has what it learns by."""
