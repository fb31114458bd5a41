"""Files of a run: whole or absent, replaced in one step."""
