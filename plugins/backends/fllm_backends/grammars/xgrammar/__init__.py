"""The optional xgrammar grammar backend (extra `xgrammar`)."""
