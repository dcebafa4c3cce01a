"""The SQL side: rows that make experiments findable.  Files are the truth; everything here can be rebuilt from them."""
