"""What everything else builds on: errors, files, locations, documents, plugins, provenance."""
