"""Files of results: the Parquet rows of runs, their compaction and provenance, and the cache."""
