"""Repairs: how fields of failed records are changed before they are sent again."""
