"""The review page: reads the ledger and the results, never calls the pipeline."""
