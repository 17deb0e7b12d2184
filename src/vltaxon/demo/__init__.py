"""What the embedded demo runs on: synthetic clades, a tiny VLM and a tiny dual encoder, all made here."""
