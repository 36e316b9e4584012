"""What the node asks of other systems and gives to them: queries, retrieval, STOW-RS, storage commitment."""
