"""The report page: runs or a suite as one HTML file, whose numbers all come from its own data."""
