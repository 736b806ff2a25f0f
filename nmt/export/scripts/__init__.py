"""Programs that are copied into an exported folder; they import nothing from this project."""
