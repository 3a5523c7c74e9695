"""A fleet's decisions without its computing: the functions of `shared/policy` in virtual time."""
