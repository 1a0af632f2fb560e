"""Import and export: a home's votes in the formats the field uses, and those of others in a home. No torch."""
