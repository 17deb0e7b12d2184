"""What shows the scores: tables, figures, the report page."""
