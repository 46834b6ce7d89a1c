//! How many processors this process may really use.
