"""Scripts that another Python runs, one that has the engine and not this package: they import nothing of replimat."""
