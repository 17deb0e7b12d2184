"""Readers of raw archives: one file per source, one function `read` each; all that is peculiar to a data set's layout."""
