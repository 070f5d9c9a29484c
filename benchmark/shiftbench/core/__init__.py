"""The ground floor: errors, files, locations, documents, plugins, provenance."""
