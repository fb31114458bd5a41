"""Draw tables: one description of a table, as text for a terminal, Markdown, CSV and JSON."""
