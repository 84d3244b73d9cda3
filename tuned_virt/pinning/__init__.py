"""Guests pinned as they start: the planner's placements, carried out, held, verified, undone."""
