"""The exercises of the book: what each takes, and what answers it at once."""
