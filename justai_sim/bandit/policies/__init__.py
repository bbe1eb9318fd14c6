"""One policy a file; `registry` names them."""
