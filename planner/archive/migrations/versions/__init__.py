"""One file per revision of the schema; a released one never changes, and none is undone: restore a copy instead."""
