"""The offline HTML report of a package."""
