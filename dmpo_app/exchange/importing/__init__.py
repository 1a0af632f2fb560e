"""Import of other people's pairs and votes: read, checked, previewed, stored batch by batch."""
