"""What a run of the load generator says: numbers (`statistics/`), shown as a terminal table or as a
page with plots (`page/`)."""
