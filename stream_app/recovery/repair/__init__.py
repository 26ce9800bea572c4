"""Repairs: rules that change fields of failed records before they are sent again."""
