"""Data in and out: a home's votes in the formats the field uses, and those of others taken into a home. No torch."""
