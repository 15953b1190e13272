"""What is attacked and bounded: ``models`` of ``layers``, their ``canonical`` form."""
