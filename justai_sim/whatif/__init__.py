"""One log under many readings of the rule: what each would have said, and which one a dashboard used."""
