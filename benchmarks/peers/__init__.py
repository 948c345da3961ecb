"""What the suite is measured against: what people build today, and other engines for the same weights."""
