//! Ctrl-C: the command ends at once with a clear line, and what was begun goes on.
