"""The fitting half of the line: Points -> fit -> frontier, prediction. numpy and scipy only; it works on anybody's table."""
