"""The methods that ship with the package: every file is one, called as the file is."""
