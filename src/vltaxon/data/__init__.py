"""From raw archives to tables: members stay byte ranges of a tar, never one of many small files."""
