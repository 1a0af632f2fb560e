"""Other people's pairs and votes, taken into a home: read, checked, previewed, stored batch by batch."""
