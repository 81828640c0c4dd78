"""The command line, `lreg`: a file for each command or kin of commands."""
