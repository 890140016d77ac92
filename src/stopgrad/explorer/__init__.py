"""The explorer: theory, runs and ledger in the browser, served to this machine alone (`stopgrad explore`)."""
