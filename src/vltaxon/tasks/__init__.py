"""Tasks: for each rule one typed record of what a job reads, writes and needs."""
