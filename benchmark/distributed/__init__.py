"""Everything that imports ray."""
