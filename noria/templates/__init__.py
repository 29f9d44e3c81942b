"""templates: the project folders that `noria init` writes, each with the code that writes its sample data."""
