"""What a log says in one sentence: ship, wait, or stop; and whether its numbers can be trusted."""
