"""Networks that are written here, since the packages they come from can't be depended on."""
