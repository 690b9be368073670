"""How files come to be whole, and arrays that stay on disk. Knows no other room."""
