"""The ledger's pages, made from the store of finished trials alone."""
