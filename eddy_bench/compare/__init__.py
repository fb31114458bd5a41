"""Which method is better, by how much, and does a change make anything worse."""
